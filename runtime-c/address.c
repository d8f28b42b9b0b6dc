#include "address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

socklen_t address_to_socket(const struct address *address, struct sockaddr_storage *out) {
  if (address->family == 4) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(address->port)};
    memcpy(&to.sin_addr, address->ip, sizeof to.sin_addr);
    memcpy(out, &to, sizeof to);
    return sizeof to;
  }
  if (address->family == 6) {
    struct sockaddr_in6 to = {
        .sin6_family = AF_INET6, .sin6_port = htons(address->port), .sin6_scope_id = address->scope};
    memcpy(&to.sin6_addr, address->ip, sizeof to.sin6_addr);
    memcpy(out, &to, sizeof to);
    return sizeof to;
  }
  return 0;
}

bool address_from_socket(const struct sockaddr_storage *from, struct address *out) {
  memset(out, 0, sizeof *out);
  if (from->ss_family == AF_INET) {
    struct sockaddr_in in;
    memcpy(&in, from, sizeof in);
    out->family = 4;
    out->port = ntohs(in.sin_port);
    memcpy(out->ip, &in.sin_addr, sizeof in.sin_addr);
    return true;
  }
  if (from->ss_family != AF_INET6) return false;
  struct sockaddr_in6 in;
  memcpy(&in, from, sizeof in);
  out->family = 6;
  out->port = ntohs(in.sin6_port);
  out->scope = in.sin6_scope_id;
  memcpy(out->ip, &in.sin6_addr, sizeof in.sin6_addr);
  return true;
}

void address_map(struct address *address) {
  if (address->family != 4) return;
  const uint8_t prefix[] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  address->family = 6;
  memcpy(address->ip + sizeof prefix, address->ip, 4);
  memcpy(address->ip, prefix, sizeof prefix);
}

const char *address_text(const struct address *address, char *text) {
  char ip[INET6_ADDRSTRLEN] = "none";
  if (address->family != 0) inet_ntop(address->family == 4 ? AF_INET : AF_INET6, address->ip, ip, sizeof ip);
  if (address->family == 6 && address->scope != 0)
    snprintf(text, ADDRESS_TEXT_BYTES, "[%s%%%u]:%u", ip, address->scope, address->port);
  else snprintf(text, ADDRESS_TEXT_BYTES, address->family == 6 ? "[%s]:%u" : "%s:%u", ip, address->port);
  return text;
}

static bool parse_port(const char *text, uint16_t *port) {
  if (*text == '\0') {
    *port = 0;
    return true;
  }
  if (strspn(text, "0123456789") == strlen(text)) {
    unsigned long number = strlen(text) <= 5 ? strtoul(text, NULL, 10) : UINT32_MAX;
    *port = (uint16_t)number;
    return number <= UINT16_MAX;
  }
  const struct servent *service = getservbyname(text, NULL);
  if (service == NULL) return false;
  *port = ntohs((uint16_t)service->s_port);
  return true;
}

const char *address_split(const char *text, bool is_bind, struct host_port *out) {
  const char *colon = strrchr(text, ':');
  if (colon == NULL) return "an address must be host:port, there is no colon";
  size_t length = (size_t)(colon - text);
  if (length >= sizeof out->host) return "the host is too long";
  if (length >= 2 && text[0] == '[' && colon[-1] == ']') {
    text++;
    length -= 2;
  } else if (memchr(text, ':', length) != NULL) {
    return "an IPv6 address must be in brackets, as in [::1]:53";
  }
  memcpy(out->host, text, length);
  out->host[length] = '\0';
  if (strpbrk(out->host, "[] \t\r\n") != NULL) return "the host contains a bracket or white space";
  if (!parse_port(colon + 1, &out->port)) return "the port must be a number from 0 to 65535 or the name of a service";
  if (*out->host != '\0' && strcmp(out->host, "*") != 0) return NULL;
  if (!is_bind) return "the host is missing";
  strcpy(out->host, "0.0.0.0");
  return NULL;
}
