#include "core.h"

#include <unistd.h>

/* Exit status at a trap: EX_SOFTWARE of sysexits.h. */
#define TRAP_STATUS 70

void core_trap(wasm_rt_trap_t code) {
  char text[] = "trap ? of the engine\n";
  text[5] = (char)('0' + (int)code);
  /* stdio is not safe in a signal handler */
  if (write(STDERR_FILENO, text, sizeof text - 1) < 0) _exit(TRAP_STATUS);
  _exit(TRAP_STATUS);
}

int core_open(core_t *core) {
  wasm_rt_init();
  core_instantiate(core);
  return core_abi_version(core) == KCPTUN_ABI_VERSION ? 0 : -1;
}
