#include "mmu_core/base/access.h"

#include <string_view>

namespace mmu {

std::string_view ToString(AccessKind kind) {
  switch (kind) {
    case AccessKind::kRead:
      return "read";
    case AccessKind::kWrite:
      return "write";
    case AccessKind::kExec:
      return "exec";
  }
  return "invalid";
}

std::string_view ToString(FaultResult result) {
  switch (result) {
    case FaultResult::kContinue:
      return "continue";
    case FaultResult::kRetry:
      return "retry";
    case FaultResult::kEmulate:
      return "emulate";
    case FaultResult::kWriteProtected:
      return "write_protected";
    case FaultResult::kInvalid:
      return "invalid";
    case FaultResult::kFixed:
      return "fixed";
    case FaultResult::kSpurious:
      return "spurious";
  }
  return "invalid";
}

}  // namespace mmu
