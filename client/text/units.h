// Sizes, counts and times as people write and read them.

#ifndef CLIENT_TEXT_UNITS_H_
#define CLIENT_TEXT_UNITS_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "client/mmu_client/page_bitmap.h"
#include "server/base/wall_time.h"

namespace mmud::client {

// "4096", "4K", "4KiB", "2M", "1GiB", "1.5GiB", "0x40000000": bytes. K, M, G
// and T are powers of 1024 with and without "iB"; "KB" and the like are powers
// of 1000. INVALID_ARGUMENT for everything else: negative, too large for 63
// bits, or not a whole number of bytes.
absl::StatusOr<int64_t> ParseBytes(absl::string_view text);

// "GPA+SIZE" or "GPA-END", each number as in ParseBytes.
absl::StatusOr<GpaRange> ParseGpaRange(absl::string_view text);

// "10Gbit/s", "125MB/s", "1GiB/s", or bytes per second as in ParseBytes; bits
// count in powers of 1000. At least 1.
absl::StatusOr<int64_t> ParseBandwidth(absl::string_view text);

// "300ms", "2.5s", "1m30s": as absl::ParseDuration, and not negative.
absl::StatusOr<absl::Duration> ParseTime(absl::string_view text);

// "4 GiB", "1.5 MiB", "512 B": at most one decimal.
std::string FormatBytes(int64_t bytes);

// "0x40000000".
std::string FormatGpa(int64_t gpa_bytes);

// "1,234,567".
std::string FormatCount(int64_t count);

// Three significant digits: "0", "12.3 us", "4.56 ms", "78.9 s", "2m 05s".
std::string FormatTime(absl::Duration time);

// "2026-11-21 08:24:37 UTC".
std::string FormatWallTime(WallTime time);

// "1.25 GB/s" in powers of 1000, as usual for links.
std::string FormatBandwidth(double bytes_per_second);

// "45.3%".
std::string FormatShare(double part, double whole);
// The same of two counts of pages or bytes.
std::string FormatShareOf(int64_t part, int64_t whole);

}  // namespace mmud::client

#endif  // CLIENT_TEXT_UNITS_H_
