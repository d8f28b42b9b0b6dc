#include "local_address.h"

#include <errno.h>
#include <string.h>

#include "log.h"

/*
 * A number keeps its address until that vanishes: a stranger who sends to many addresses of the machine must not change
 * the source of answers to others. Addresses beyond get no number.
 */
#define NUMBERS 255

/* IPv4: the first 4 bytes. The interface only for link-local addresses. */
struct local {
  uint8_t ip[16];
  uint32_t interface;
  bool is_used;
};

static struct local table[NUMBERS + 1];
static uint8_t last;
static int used_family;

void local_open(int fd, int family, bool is_wanted) {
  const int on = 1;
  memset(table, 0, sizeof table);
  last = 0;
  used_family = family;
  if (!is_wanted) return;
  int failed = family == 4 ? setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof on)
                           : setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof on);
  if (failed) log_line(LOG_WARNING, "udp: the system selects the source address: %s", strerror(errno));
}

static bool holds(uint8_t number, const struct local *local) {
  const struct local *entry = &table[number];
  return entry->is_used && memcmp(entry->ip, local->ip, sizeof local->ip) == 0 && entry->interface == local->interface;
}

static uint8_t find(const struct local *local) {
  if (last != 0 && holds(last, local)) return last;
  uint8_t unused = 0;
  for (uint8_t number = NUMBERS; number >= 1; number--) {
    if (holds(number, local)) return last = number;
    if (!table[number].is_used) unused = number;
  }
  if (unused == 0) return 0;
  table[unused] = *local;
  table[unused].is_used = true;
  return last = unused;
}

uint8_t local_read(const struct cmsghdr *entry) {
  struct local local = {0};
  if (entry->cmsg_level == IPPROTO_IP && entry->cmsg_type == IP_PKTINFO) {
    struct in_pktinfo info;
    memcpy(&info, CMSG_DATA(entry), sizeof info);
    memcpy(local.ip, &info.ipi_spec_dst, sizeof info.ipi_spec_dst);
    return find(&local);
  }
  if (entry->cmsg_level != IPPROTO_IPV6 || entry->cmsg_type != IPV6_PKTINFO) return 0;
  struct in6_pktinfo info;
  memcpy(&info, CMSG_DATA(entry), sizeof info);
  if (IN6_IS_ADDR_MULTICAST(&info.ipi6_addr)) return 0;
  memcpy(local.ip, &info.ipi6_addr, sizeof local.ip);
  if (IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr)) local.interface = info.ipi6_ifindex;
  return find(&local);
}

bool local_is_known(uint8_t number) { return number != 0 && table[number].is_used; }

void local_write(uint8_t number, struct cmsghdr *entry) {
  const struct local *local = &table[number];
  if (used_family == 4) {
    struct in_pktinfo info = {0};
    memcpy(&info.ipi_spec_dst, local->ip, sizeof info.ipi_spec_dst);
    *entry = (struct cmsghdr){.cmsg_level = IPPROTO_IP, .cmsg_type = IP_PKTINFO, .cmsg_len = CMSG_LEN(sizeof info)};
    memcpy(CMSG_DATA(entry), &info, sizeof info);
    return;
  }
  struct in6_pktinfo info = {.ipi6_ifindex = local->interface};
  memcpy(&info.ipi6_addr, local->ip, sizeof info.ipi6_addr);
  *entry = (struct cmsghdr){.cmsg_level = IPPROTO_IPV6, .cmsg_type = IPV6_PKTINFO, .cmsg_len = CMSG_LEN(sizeof info)};
  memcpy(CMSG_DATA(entry), &info, sizeof info);
}

void local_forget(uint8_t number) { table[number].is_used = false; }
