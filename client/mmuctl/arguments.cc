#include "client/mmuctl/arguments.h"

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "client/mmu_client/page_bitmap.h"
#include "client/mmu_client/time_conversion.h"
#include "client/text/units.h"

namespace mmud::client {
namespace {

const std::map<std::string, v1::PageSize>& PageSizes() {
  static const auto* const sizes =
      new std::map<std::string, v1::PageSize>{{"4k", v1::PAGE_SIZE_4K},
                                              {"2m", v1::PAGE_SIZE_2M},
                                              {"1g", v1::PAGE_SIZE_1G}};
  return *sizes;
}

const std::map<std::string, v1::MemoryBacking>& Backings() {
  static const auto* const backings =
      new std::map<std::string, v1::MemoryBacking>{
          {"anonymous", v1::MEMORY_BACKING_ANONYMOUS},
          {"memfd", v1::MEMORY_BACKING_MEMFD},
          {"metadata-only", v1::MEMORY_BACKING_METADATA_ONLY}};
  return *backings;
}

// Adds an option whose text goes through `parse`; its error is a usage error.
template <typename Parse>
CLI::Option* AddParsed(CLI::App* app, const std::string& name,
                       const std::string& type, const std::string& help,
                       Parse parse) {
  return app
      ->add_option_function<std::string>(
          name,
          [name, parse](const std::string& text) {
            if (const absl::Status status = parse(text); !status.ok()) {
              throw CLI::ValidationError(name, std::string(status.message()));
            }
          },
          help)
      ->type_name(type);
}

template <typename T>
absl::Status Assign(const absl::StatusOr<T>& parsed, T* value) {
  if (parsed.ok()) *value = *parsed;
  return parsed.status();
}

std::string Examples(const std::string& lines) {
  if (lines.empty()) return "";
  return absl::StrCat("examples:\n  ",
                      absl::StrReplaceAll(lines, {{"\n", "\n  "}}));
}

}  // namespace

CLI::App* AddCommand(CLI::App& parent, const std::string& name,
                     const std::string& description,
                     const std::string& examples) {
  CLI::App* command = parent.add_subcommand(name, description);
  command->footer(Examples(examples));
  return command;
}

CLI::App* AddGroup(CLI::App& parent, const std::string& name,
                   const std::string& description,
                   const std::string& examples) {
  CLI::App* group = AddCommand(parent, name, description, examples);
  group->require_subcommand(1);
  return group;
}

std::string ChoiceWord(absl::string_view text) {
  return absl::StrReplaceAll(absl::AsciiStrToLower(text), {{"_", "-"}});
}

std::string VmName(absl::string_view text) {
  return absl::StrContains(text, "/") ? std::string(text)
                                      : absl::StrCat("vms/", text);
}

std::string OperationName(absl::string_view text) {
  return absl::StrContains(text, "/") ? std::string(text)
                                      : absl::StrCat("operations/", text);
}

CLI::Option* AddVm(CLI::App* app, std::string* vm) {
  return AddParsed(app, "VM", "NAME", "the VM: alpha or vms/alpha",
                   [vm](const std::string& text) {
                     *vm = VmName(text);
                     return absl::OkStatus();
                   })
      ->required();
}

CLI::Option* AddOperation(CLI::App* app, std::string* operation) {
  return AddParsed(app, "OPERATION", "NAME", "the operation: 7 or operations/7",
                   [operation](const std::string& text) {
                     *operation = OperationName(text);
                     return absl::OkStatus();
                   })
      ->required();
}

CLI::Option* AddBytes(CLI::App* app, const std::string& name, int64_t* bytes,
                      const std::string& help) {
  return AddParsed(app, name, "SIZE", help, [bytes](const std::string& text) {
    return Assign(ParseBytes(text), bytes);
  });
}

CLI::Option* AddTime(CLI::App* app, const std::string& name,
                     absl::Duration* time, const std::string& help) {
  return AddParsed(app, name, "TIME", help, [time](const std::string& text) {
    return Assign(ParseTime(text), time);
  });
}

CLI::Option* AddRanges(CLI::App* app, const std::string& name,
                       std::vector<GpaRange>* ranges, const std::string& help) {
  return app
      ->add_option_function<std::vector<std::string>>(
          name,
          [name, ranges](const std::vector<std::string>& texts) {
            for (const std::string& text : texts) {
              const absl::StatusOr<GpaRange> range = ParseGpaRange(text);
              if (!range.ok()) {
                throw CLI::ValidationError(
                    name, std::string(range.status().message()));
              }
              ranges->push_back(*range);
            }
          },
          help)
      ->type_name("START+SIZE")
      ->expected(1, 65536);
}

CLI::Option* AddPageSize(CLI::App* app, const std::string& name,
                         v1::PageSize* size, const std::string& help) {
  return AddChoice(app, name, size, PageSizes(), help);
}

CLI::Option* AddBacking(CLI::App* app, v1::MemoryBacking* backing) {
  return AddChoice(app, "--backing", backing, Backings(),
                   "what holds the contents (default: anonymous)");
}

void AddThrottle(CLI::App* app, v1::Throttle* throttle) {
  const auto number = [app](const char* name, const char* help, auto set) {
    app->add_option_function<int64_t>(name, set, help)
        ->type_name("N")
        ->group("throttle");
  };
  const auto time = [app](const char* name, const char* help, auto set) {
    AddParsed(app, name, "TIME", help, [set](const std::string& text) {
      absl::Duration duration;
      const absl::Status status = Assign(ParseTime(text), &duration);
      if (status.ok()) set(ToProto(duration));
      return status;
    })->group("throttle");
  };
  number("--max-pages-per-second", "4 KiB pages per second; 0: no limit",
         [throttle](int64_t n) { throttle->set_max_pages_per_second(n); });
  AddParsed(app, "--chunk", "SIZE",
            "memory between two safe points (default: 2MiB)",
            [throttle](const std::string& text) {
              int64_t bytes = 0;
              const absl::Status status = Assign(ParseBytes(text), &bytes);
              if (status.ok()) throttle->set_chunk_bytes(bytes);
              return status;
            })
      ->group("throttle");
  time("--max-lock-hold", "longest hold of mmu_lock (default: 200us)",
       [throttle](const auto& t) { *throttle->mutable_max_lock_hold() = t; });
  time("--min-pause", "least pause after each chunk",
       [throttle](const auto& t) { *throttle->mutable_min_pause() = t; });
  number("--max-flushes-per-second", "TLB flushes per second; 0: no limit",
         [throttle](int64_t n) { throttle->set_max_flushes_per_second(n); });
  app->add_option_function<double>(
         "--max-vcpu-stall-ratio",
         [throttle](double ratio) {
           throttle->set_max_vcpu_stall_ratio(ratio);
         },
         "share of vCPU time lost to stalls, 0 to 1; 0: no limit")
      ->type_name("RATIO")
      ->group("throttle");
}

absl::StatusOr<v1::Memslot> ParseMemslot(absl::string_view text) {
  const auto error = [text](absl::string_view why) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", text, "': ", why,
                     "; give SLOT:START+SIZE[:PAGE[:BACKING]], for example "
                     "0:0+2GiB:2m:memfd"));
  };
  const std::vector<std::string> parts = absl::StrSplit(text, ':');
  int32_t id = 0;
  if (parts.size() < 2 || parts.size() > 4) {
    return error("has not two to four parts");
  }
  if (!absl::SimpleAtoi(parts[0], &id)) return error("the slot is no number");
  const absl::StatusOr<GpaRange> range = ParseGpaRange(parts[1]);
  if (!range.ok()) return range.status();
  v1::Memslot memslot;
  memslot.set_slot(id);
  memslot.set_gpa_bytes(range->gpa_bytes);
  memslot.set_size_bytes(range->size_bytes);
  if (parts.size() > 2) {
    const auto size = FindChoice(PageSizes(), parts[2]);
    if (!size.ok()) return error(size.status().message());
    memslot.set_host_page_size(*size);
  }
  if (parts.size() > 3) {
    const auto backing = FindChoice(Backings(), parts[3]);
    if (!backing.ok()) return error(backing.status().message());
    memslot.set_backing(*backing);
  }
  return memslot;
}

v1::Extent ToExtent(const GpaRange& range) {
  v1::Extent extent;
  extent.set_gpa_bytes(range.gpa_bytes);
  extent.set_size_bytes(range.size_bytes);
  return extent;
}

}  // namespace mmud::client
