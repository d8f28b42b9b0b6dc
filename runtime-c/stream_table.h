/* The table behind stream_find and stream_any. */
#ifndef STREAM_TABLE_H
#define STREAM_TABLE_H

#include "stream.h"

/* Returns false without memory. */
bool stream_table_add(struct stream *stream);

/* Removes a stream, which must be in the table. */
void stream_table_remove(struct stream *stream);

#endif
