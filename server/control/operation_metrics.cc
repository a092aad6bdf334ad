#include "server/control/operation_metrics.h"

namespace mmud {

const char* ToString(OperationMethod method) {
  switch (method) {
    case OperationMethod::kSplitHugePages:
      return "SplitHugePages";
    case OperationMethod::kRecoverHugePages:
      return "RecoverHugePages";
    case OperationMethod::kStartDirtyLog:
      return "StartDirtyLog";
    case OperationMethod::kCreateGeneration:
      return "CreateGeneration";
  }
  return "invalid";
}

}  // namespace mmud
