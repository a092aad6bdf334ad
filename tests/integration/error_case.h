// A call that must fail, and the error that it must have.

#ifndef TESTS_INTEGRATION_ERROR_CASE_H_
#define TESTS_INTEGRATION_ERROR_CASE_H_

#include <functional>
#include <string>

#include "grpcpp/grpcpp.h"
#include "tests/integration/guest.h"
#include "tests/integration/test_client.h"

namespace mmud::integration {

// "$0" in the request stands for the VM of the case, "$1" for the result of
// `prepare`, for example the name of an operation.
struct ErrorCase {
  const char* reason;
  grpc::StatusCode code;
  const char* method;
  const char* request;
  const char* field;     // of the ErrorInfo; "" if it has none
  const char* mentions;  // part of the message: a value, a name, a limit
  std::function<std::string(const TestClient&, const Guest&)> prepare = nullptr;
};

inline constexpr auto kInvalid = grpc::StatusCode::INVALID_ARGUMENT;
inline constexpr auto kNotFound = grpc::StatusCode::NOT_FOUND;
inline constexpr auto kExists = grpc::StatusCode::ALREADY_EXISTS;
inline constexpr auto kPrecondition = grpc::StatusCode::FAILED_PRECONDITION;
inline constexpr auto kAborted = grpc::StatusCode::ABORTED;
inline constexpr auto kExhausted = grpc::StatusCode::RESOURCE_EXHAUSTED;

}  // namespace mmud::integration

#endif  // TESTS_INTEGRATION_ERROR_CASE_H_
