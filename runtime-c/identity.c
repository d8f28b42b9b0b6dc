#include "identity.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include "log.h"

/* setuid and setgid take the largest value for "unchanged". */
#define ID_MAX 0xfffffffeul
#define NAME_BYTES 256

static bool refuse(const char *text, const char *reason) {
  log_line(LOG_ERROR, "config key user = \"%s\": %s", text, reason);
  return false;
}

static bool parse_number(const char *text, unsigned long *id) {
  if (*text == '\0' || strspn(text, "0123456789") != strlen(text)) return false;
  errno = 0;
  *id = strtoul(text, NULL, 10);
  return errno == 0 && *id <= ID_MAX;
}

bool identity_drop(const char *text) {
  char user[NAME_BYTES];
  const char *colon = strchr(text, ':');
  size_t length = colon ? (size_t)(colon - text) : strlen(text);
  if (length >= sizeof user) return refuse(text, "too long");
  memcpy(user, text, length);
  user[length] = '\0';
  const char *group = colon ? colon + 1 : "";
  if (*user == '\0' && *group == '\0') return refuse(text, "names neither a user nor a group");

  unsigned long uid = 0;
  unsigned long gid = 0;
  bool is_login = *user != '\0' && colon != NULL && *group == '\0';
  const struct passwd *entry = NULL;
  if (*user != '\0') {
    bool is_number = parse_number(user, &uid);
    entry = is_number ? getpwuid((uid_t)uid) : getpwnam(user);
    if (entry == NULL && (!is_number || is_login)) return refuse(text, "no such user");
    if (entry != NULL) uid = entry->pw_uid;
  }
  if (is_login) gid = entry->pw_gid;
  if (*group != '\0' && !parse_number(group, &gid)) {
    const struct group *found = getgrnam(group);
    if (found == NULL) return refuse(text, "no such group");
    gid = found->gr_gid;
  }

  bool changes_group = is_login || *group != '\0';
  if (is_login ? initgroups(entry->pw_name, (gid_t)gid) != 0 : setgroups(0, NULL) != 0)
    return refuse(text, strerror(errno));
  if (changes_group && setgid((gid_t)gid) != 0) return refuse(text, strerror(errno));
  if (*user != '\0' && setuid((uid_t)uid) != 0) return refuse(text, strerror(errno));
  if (*user != '\0' && uid != 0 && setuid(0) == 0) return refuse(text, "root could be regained");
  return true;
}
