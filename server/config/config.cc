#include "server/config/config.h"

#include <unistd.h>

#include <cstdint>

namespace mmud {

int64_t PhysicalMemoryBytes() {
  return int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE);
}

}  // namespace mmud
