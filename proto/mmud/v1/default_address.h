// Default address of the daemon.

#ifndef PROTO_MMUD_V1_DEFAULT_ADDRESS_H_
#define PROTO_MMUD_V1_DEFAULT_ADDRESS_H_

namespace mmud::v1 {

// mmud listens there without --listen and --listen-tcp, and clients look there
// without an address. It is below /run, so it takes root, or a directory that
// the service manager makes.
inline constexpr char kDefaultAddress[] = "unix:/run/mmud/mmud.sock";

}  // namespace mmud::v1

#endif  // PROTO_MMUD_V1_DEFAULT_ADDRESS_H_
