#include "client/page_queue.h"

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace mmud::client {

absl::Status PageQueue::OnData(int64_t gpa_bytes, absl::string_view data) {
  pages_.push_back(
      {{gpa_bytes, static_cast<int64_t>(data.size())}, std::string(data)});
  data_bytes_ += static_cast<int64_t>(data.size());
  return data_bytes_ > max_bytes_ ? Flush() : absl::OkStatus();
}

absl::Status PageQueue::OnZeros(GpaRange range) {
  pages_.push_back({range, ""});
  return absl::OkStatus();
}

absl::Status PageQueue::Flush() {
  absl::Status status;
  size_t sent = 0;
  for (; sent < pages_.size(); ++sent) {
    const Pages& pages = pages_[sent];
    status = pages.data.empty()
                 ? destination_->OnZeros(pages.range)
                 : destination_->OnData(pages.range.gpa_bytes, pages.data);
    if (!status.ok()) break;
    data_bytes_ -= static_cast<int64_t>(pages.data.size());
  }
  pages_.erase(pages_.begin(),
               pages_.begin() + static_cast<std::ptrdiff_t>(sent));
  return status;
}

}  // namespace mmud::client
