#include "client/mmu_client/request_id.h"

#include <string>

#include "server/base/uuid.h"

namespace mmud::client {

std::string NewRequestId() { return NewUuid(); }

}  // namespace mmud::client
