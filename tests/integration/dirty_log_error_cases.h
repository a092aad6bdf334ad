// Calls that fail because of a dirty log: its state, its owner, its epochs.

#ifndef TESTS_INTEGRATION_DIRTY_LOG_ERROR_CASES_H_
#define TESTS_INTEGRATION_DIRTY_LOG_ERROR_CASES_H_

#include <vector>

#include "tests/integration/error_case.h"

namespace mmud::integration {

const std::vector<ErrorCase>& DirtyLogErrorCases();

}  // namespace mmud::integration

#endif  // TESTS_INTEGRATION_DIRTY_LOG_ERROR_CASES_H_
