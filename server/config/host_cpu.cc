#include "server/config/host_cpu.h"

#include <fstream>
#include <string>

namespace mmud {

mmu::ItlbMultihit ReadItlbMultihit(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line) || line.empty() || line == "Not affected") {
    return mmu::ItlbMultihit::kNo;
  }
  return mmu::ItlbMultihit::kYes;
}

}  // namespace mmud
