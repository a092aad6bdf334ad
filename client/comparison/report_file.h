// A file for a report, opened before the work whose report it gets.

#ifndef CLIENT_COMPARISON_REPORT_FILE_H_
#define CLIENT_COMPARISON_REPORT_FILE_H_

#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace mmud::client {

// Thread-compatible.
class ReportFile {
 public:
  // Opens the file for writing, and makes it if it does not exist. Leaves the
  // contents of a file that exists. INVALID_ARGUMENT if it cannot be written,
  // with the cause.
  static absl::StatusOr<std::unique_ptr<ReportFile>> Open(
      const std::string& path);

  // Closes the file. Removes a file that Open has made and that has got no
  // report.
  ~ReportFile();
  ReportFile(const ReportFile&) = delete;
  ReportFile& operator=(const ReportFile&) = delete;

  // Replaces the contents of the file. To be called once. DATA_LOSS if the
  // report cannot be written completely.
  absl::Status Write(const std::string& report);

 private:
  enum class Made { kNo, kYes };

  ReportFile(std::string path, int fd, Made made)
      : path_(std::move(path)), fd_(fd), made_(made) {}

  const std::string path_;
  const int fd_;
  const Made made_;
  bool written_ = false;
};

}  // namespace mmud::client

#endif  // CLIENT_COMPARISON_REPORT_FILE_H_
