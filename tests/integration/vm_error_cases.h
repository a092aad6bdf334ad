// Calls that fail without a dirty log: about VMs, their memory, and the
// operations and workloads on them.

#ifndef TESTS_INTEGRATION_VM_ERROR_CASES_H_
#define TESTS_INTEGRATION_VM_ERROR_CASES_H_

#include <string>
#include <vector>

#include "tests/integration/error_case.h"
#include "tests/integration/guest.h"
#include "tests/integration/test_client.h"

namespace mmud::integration {

const std::vector<ErrorCase>& VmErrorCases();

// Starts a split that waits for ten seconds between two steps. Returns the name
// of its operation.
std::string RunSplit(const TestClient& client, const Guest& guest);

}  // namespace mmud::integration

#endif  // TESTS_INTEGRATION_VM_ERROR_CASES_H_
