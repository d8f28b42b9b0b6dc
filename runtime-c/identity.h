/* Dropping privileges after all sockets are open. */
#ifndef IDENTITY_H
#define IDENTITY_H

#include <stdbool.h>

/*
 * Switches for good to `user`, `user:`, `user:group` or `:group`, names or numbers: `user` changes the user alone,
 * `user:` takes the login group and the supplementary groups, too. Returns false, and logs why; the process must not go
 * on then.
 */
bool identity_drop(const char *text);

#endif
