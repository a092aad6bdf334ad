// The status codes of gRPC, by number and by name.

#ifndef SERVER_BASE_STATUS_CODES_H_
#define SERVER_BASE_STATUS_CODES_H_

namespace mmud {

inline constexpr int kStatusCodes = 17;

// "OK", "CANCELLED", ...; "UNKNOWN" if `code` is not a status code.
const char* StatusCodeName(int code);

}  // namespace mmud

#endif  // SERVER_BASE_STATUS_CODES_H_
