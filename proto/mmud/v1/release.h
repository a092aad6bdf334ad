// The release that the daemon, its clients and this API are of.

#ifndef PROTO_MMUD_V1_RELEASE_H_
#define PROTO_MMUD_V1_RELEASE_H_

namespace mmud::v1 {

inline constexpr char kRelease[] = "0.1.0";

}  // namespace mmud::v1

#endif  // PROTO_MMUD_V1_RELEASE_H_
