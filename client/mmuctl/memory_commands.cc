// mmuctl memory read.

#include <cstdint>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "client/mmu_client/client.h"
#include "client/mmu_client/page_bitmap.h"
#include "client/mmu_client/page_reader.h"
#include "client/mmuctl/arguments.h"
#include "client/mmuctl/commands.h"
#include "client/mmuctl/context.h"
#include "client/text/message_json.h"
#include "client/text/units.h"
#include "nlohmann/json.hpp"

namespace mmud::client {
namespace {

struct ReadArguments {
  std::string vm;
  std::vector<GpaRange> ranges;
  std::string output;
};

// Writes bytes as lines of hexadecimal numbers, leaving out lines of zeros.
class HexSink : public PageSink {
 public:
  explicit HexSink(std::ostream* out) : out_(out) {}
  absl::Status OnData(int64_t gpa, absl::string_view data) override {
    for (size_t at = 0; at < data.size(); at += 16) {
      const absl::string_view line = data.substr(at, 16);
      if (line.find_first_not_of('\0') == line.npos) continue;
      std::string hex, text;
      for (const char c : line) {
        absl::StrAppendFormat(&hex, " %02x", static_cast<uint8_t>(c));
        text += absl::ascii_isprint(static_cast<uint8_t>(c)) ? c : '.';
      }
      *out_ << absl::StrFormat("%012x %s  %s\n", gpa + at, hex, text);
    }
    return absl::OkStatus();
  }
  absl::Status OnZeros(GpaRange) override { return absl::OkStatus(); }

 private:
  std::ostream* const out_;
};

// Collects bytes for JSON, one entry per page, leaving out pages of zeros.
class JsonSink : public PageSink {
 public:
  absl::Status OnData(int64_t gpa, absl::string_view data) override {
    for (size_t at = 0; at < data.size(); at += kPageBytes) {
      const absl::string_view page = data.substr(at, kPageBytes);
      if (page.find_first_not_of('\0') == page.npos) continue;
      pages_.push_back({{"gpa_bytes", gpa + static_cast<int64_t>(at)},
                        {"data", absl::Base64Escape(page)}});
    }
    return absl::OkStatus();
  }
  absl::Status OnZeros(GpaRange) override { return absl::OkStatus(); }
  const Json& pages() const { return pages_; }

 private:
  Json pages_ = Json::array();
};

// Writes bytes to a file that begins with the first byte read.
class FileSink : public PageSink {
 public:
  FileSink(std::ofstream* file, int64_t start) : file_(file), start_(start) {}
  absl::Status OnData(int64_t gpa, absl::string_view data) override {
    file_->seekp(gpa - start_);
    file_->write(data.data(), static_cast<std::streamsize>(data.size()));
    return Check();
  }
  absl::Status OnZeros(GpaRange range) override {
    // Leave a hole for zeros. Only the last byte is written, so that the file
    // is long enough.
    file_->seekp(range.end_bytes() - start_ - 1);
    file_->put('\0');
    return Check();
  }

 private:
  absl::Status Check() const {
    return *file_ ? absl::OkStatus()
                  : absl::ResourceExhaustedError("the file cannot be written");
  }

  std::ofstream* const file_;
  const int64_t start_;
};

absl::Status Read(Context& context, Client& client,
                  const ReadArguments& arguments) {
  PageReader reader(&client.memory(), arguments.vm, {});
  absl::StatusOr<ReadTotals> totals;
  Json pages = Json::array();
  if (arguments.output.empty() && context.json) {
    JsonSink sink;
    totals = reader.Read(arguments.ranges, &sink);
    pages = sink.pages();
  } else if (arguments.output.empty()) {
    HexSink sink(&context.out());
    totals = reader.Read(arguments.ranges, &sink);
  } else {
    std::ofstream file(arguments.output, std::ios::binary | std::ios::trunc);
    if (!file) {
      return absl::NotFoundError(
          absl::StrCat(arguments.output, " cannot be opened for writing"));
    }
    FileSink sink(&file, arguments.ranges.front().gpa_bytes);
    totals = reader.Read(arguments.ranges, &sink);
  }
  if (!totals.ok()) return totals.status();
  return context.Print(Json{{"page_count", totals->page_count},
                            {"zero_page_count", totals->zero_page_count},
                            {"data_size_bytes", totals->data_size_bytes},
                            {"pages", std::move(pages)}},
                       absl::StrCat(FormatCount(totals->page_count), " pages, ",
                                    FormatCount(totals->zero_page_count),
                                    " of them all zeros\n"));
}

}  // namespace

void AddMemoryCommands(CLI::App& app, Context& context) {
  CLI::App* group =
      AddGroup(app, "memory", "Reads guest memory.",
               "mmuctl memory read alpha 1GiB+4KiB\n"
               "mmuctl memory read alpha 0+1GiB --output alpha.bin");
  auto arguments = std::make_shared<ReadArguments>();
  CLI::App* command =
      AddCommand(*group, "read",
                 "Shows guest memory in hexadecimal, without lines of zeros, "
                 "or writes it to a file. The vCPUs keep running.",
                 "mmuctl memory read alpha 1GiB+4KiB\n"
                 "mmuctl memory read alpha 0+1GiB --output alpha.bin");
  AddVm(command, &arguments->vm);
  AddRanges(command, "RANGE", &arguments->ranges,
            "the memory to read, ascending")
      ->required();
  command
      ->add_option("-o,--output", arguments->output,
                   "file to write the bytes to")
      ->type_name("FILE");
  Run(command, context, arguments, Read);
}

}  // namespace mmud::client
