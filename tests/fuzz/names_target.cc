// Names of resources, tokens of paged lists, addresses to listen on. The first
// byte of an input chooses one, the rest is its text.

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "server/base/resource_names.h"
#include "server/config/listen_address.h"
#include "tests/fuzz/target.h"

namespace mmud::fuzz {
namespace {

constexpr char kField[] = "the_field";

void CheckRefusal(const absl::Status& status) {
  const mmu::ErrorDetail detail = mmu::DetailOf(status);
  FUZZ_CHECK(status.code() == absl::StatusCode::kInvalidArgument &&
                 detail.reason != mmu::Reason::kNone && !detail.field.empty(),
             status);
}

void RunVmName(absl::string_view text) {
  const absl::Status status = CheckVmName(text, kField);
  if (!status.ok()) return CheckRefusal(status);
  FUZZ_CHECK(text.substr(0, 4) == "vms/", text);
  FUZZ_CHECK(CheckVmId(text.substr(4), kField).ok(), text);
  FUZZ_CHECK(VmName(text.substr(4)) == text, text);
}

void RunMemslotName(absl::string_view text) {
  const absl::StatusOr<MemslotName> name = ParseMemslotName(text, kField);
  if (!name.ok()) return CheckRefusal(name.status());
  FUZZ_CHECK(name->slot <= kMaxSlot, text);
  FUZZ_CHECK(MakeMemslotName(name->vm, name->slot) == text, text);
}

void RunWorkloadName(absl::string_view text) {
  const absl::StatusOr<WorkloadName> name = ParseWorkloadName(text, kField);
  if (!name.ok()) return CheckRefusal(name.status());
  FUZZ_CHECK(CheckVmName(name->vm, kField).ok(), text);
  const absl::StatusOr<WorkloadName> again =
      ParseWorkloadName(name->name, kField);
  FUZZ_CHECK(again.ok() && again->name == name->name && again->vm == name->vm,
             text);
}

void RunOperationName(absl::string_view text) {
  const absl::StatusOr<std::string> name = ParseOperationName(text, kField);
  if (!name.ok()) return CheckRefusal(name.status());
  const absl::StatusOr<std::string> again = ParseOperationName(*name, kField);
  FUZZ_CHECK(again.ok() && *again == *name, text);
}

void RunPageToken(absl::string_view text) {
  // The text is a key: its token gives it back, and only to its own list.
  const std::string token = MakePageToken("vms", text);
  const absl::StatusOr<std::string> key = ParsePageToken("vms", token);
  FUZZ_CHECK(key.ok() && *key == text, text);
  FUZZ_CHECK(!ParsePageToken("operations", token).ok(), text);
  // The text is a token.
  const absl::StatusOr<std::string> parsed = ParsePageToken("vms", text);
  if (!parsed.ok()) CheckRefusal(parsed.status());
  const absl::StatusOr<absl::optional<uint64_t>> number =
      ParseNumberToken("slots", text);
  if (!number.ok()) CheckRefusal(number.status());
}

void RunListenAddress(absl::string_view text) {
  const absl::StatusOr<ListenAddress> address =
      ParseListenAddress("listen_tcp", std::string(text));
  if (!address.ok()) {
    FUZZ_CHECK(absl::IsInvalidArgument(address.status()), address.status());
    FUZZ_CHECK(address.status().message().find("listen_tcp") !=
                   absl::string_view::npos,
               address.status());
    return;
  }
  FUZZ_CHECK(address->port >= 0 && address->port <= 65535, text);
  const std::string shown = address->ToString();
  const absl::StatusOr<ListenAddress> again =
      ParseListenAddress("listen_tcp", shown);
  FUZZ_CHECK(again.ok() && again->ToString() == shown &&
                 again->is_loopback == address->is_loopback &&
                 again->is_v6 == address->is_v6,
             shown);
}

constexpr void (*kParsers[])(absl::string_view) = {
    RunVmName,        RunMemslotName, RunWorkloadName,
    RunOperationName, RunPageToken,   RunListenAddress};

void Run(std::string_view input) {
  if (input.empty()) return;
  const size_t parser = static_cast<unsigned char>(input[0]) % 6;
  input.remove_prefix(1);
  kParsers[parser]({input.data(), input.size()});
}

std::vector<Seed> Seeds() {
  const std::string uuid = "3f0d7c52-7f41-4b7e-8d35-6a0c9d1e2f3b";
  const auto seed = [](char parser, const std::string& text) {
    return parser + text;
  };
  return {{"vm", seed('\0', "vms/alpha-1")},
          {"memslot", seed('\1', "vms/alpha/memslots/32763")},
          {"workload", seed('\2', "vms/alpha/workloads/" + uuid)},
          {"operation", seed('\3', "operations/" + uuid)},
          {"page_token", seed('\4', MakePageToken("vms", "alpha"))},
          {"number_token", seed('\4', MakePageToken("slots", "17"))},
          {"address_v4", seed('\5', "127.0.0.1:9464")},
          {"address_v6", seed('\5', "[::1]:0")},
          {"address_name", seed('\5', "localhost:80")}};
}

}  // namespace

Target ThisTarget() { return {.run = Run, .seeds = Seeds}; }

}  // namespace mmud::fuzz
