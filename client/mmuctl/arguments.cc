#include "client/mmuctl/arguments.h"

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
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
#include "client/text/wrap.h"

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

// Adds an option whose text is parsed by `parse`. An error of `parse` is a
// usage error.
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
  std::string text = "examples:";
  for (const absl::string_view line : absl::StrSplit(lines, '\n')) {
    absl::StrAppend(&text, "\n", WrapCommand(line, kHelpWidth, 2));
  }
  return text;
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

CLI::Option* AddVm(CLI::App* app, std::string* vm) {
  return AddParsed(app, "VM", "NAME", "the VM: alpha or vms/alpha",
                   [vm](const std::string& text) {
                     *vm = VmName(text);
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

CLI::Option* AddBytes(CLI::App* app, const std::string& name,
                      std::function<void(int64_t)> set,
                      const std::string& help) {
  return AddParsed(app, name, "SIZE", help,
                   [set = std::move(set)](const std::string& text) {
                     int64_t bytes = 0;
                     absl::Status status = Assign(ParseBytes(text), &bytes);
                     if (status.ok()) set(bytes);
                     return status;
                   });
}

CLI::Option* AddTime(CLI::App* app, const std::string& name,
                     absl::Duration* time, const std::string& help) {
  return AddParsed(app, name, "TIME", help, [time](const std::string& text) {
    return Assign(ParseTime(text), time);
  });
}

CLI::Option* AddFiniteTime(CLI::App* app, const std::string& name,
                           std::function<void(absl::Duration)> set,
                           const std::string& help) {
  return app
      ->add_option_function<std::vector<std::string>>(
          name,
          [name, set](const std::vector<std::string>& texts) {
            for (const std::string& text : texts) {
              absl::StatusOr<absl::Duration> time = ParseTime(text);
              if (time.ok() && *time == absl::InfiniteDuration()) {
                time = absl::InvalidArgumentError(absl::StrCat(
                    "'", text, "' is infinite; give for example 2.5s or 1m"));
              }
              if (!time.ok()) {
                throw CLI::ValidationError(
                    name, std::string(time.status().message()));
              }
              set(*time);
            }
          },
          help)
      ->type_name("TIME")
      ->expected(1);
}

CLI::Option* AddNumber(CLI::App* app, const std::string& name, int64_t min,
                       int64_t max, std::function<void(int64_t)> set,
                       const std::string& help) {
  return AddParsed(
      app, name, "N", help,
      [min, max, set = std::move(set)](const std::string& text) {
        int64_t value = 0;
        if (!absl::SimpleAtoi(text, &value) || value < min || value > max) {
          return absl::InvalidArgumentError(absl::StrCat(
              "'", text, "' is not a whole number from ", min, " to ", max));
        }
        set(value);
        return absl::OkStatus();
      });
}

CLI::Option* AddCpuPercent(CLI::App* app, std::function<void(int32_t)> set,
                           const std::string& help) {
  return AddNumber(
      app, "--cpu-percent", 1, 100,
      [set = std::move(set)](int64_t percent) {
        set(static_cast<int32_t>(percent));
      },
      help);
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
                   "memory that holds the contents (default: anonymous)");
}

CLI::Option* AddSlot(CLI::App* app, int32_t* slot) {
  return app->add_option("SLOT", *slot, "the memslot, by its id: 0 to 32763")
      ->type_name("ID")
      ->required();
}

CLI::Option* AddSlots(CLI::App* app, std::vector<int32_t>* slots) {
  return app
      ->add_option("SLOT", *slots,
                   "memslots, by their ids (default: all suitable ones)")
      ->type_name("ID")
      ->expected(0, 32764);
}

void ThrottleArguments::ApplyTo(v1::Throttle* throttle) const {
  for (const auto& change : changes_) change(throttle);
}

void AddThrottle(CLI::App* app, ThrottleArguments* throttle) {
  // Adds an option that parses its text and passes the value and the throttle
  // to `set`.
  const auto add = [app, throttle](const char* name, const char* type,
                                   const char* help, auto parse, auto set) {
    AddParsed(app, name, type, help,
              [throttle, parse, set](const std::string& text) {
                const auto value = parse(text);
                if (!value.ok()) return value.status();
                throttle->Add([set, value = *value](v1::Throttle* to) {
                  set(value, to);
                });
                return absl::OkStatus();
              })
        ->group("throttle");
  };
  const auto number = [](const std::string& text) -> absl::StatusOr<int64_t> {
    int64_t value = 0;
    if (absl::SimpleAtoi(text, &value)) return value;
    return absl::InvalidArgumentError(
        absl::StrCat("'", text, "' is not a whole number"));
  };
  const auto ratio = [](const std::string& text) -> absl::StatusOr<double> {
    double value = 0;
    if (absl::SimpleAtod(text, &value)) return value;
    return absl::InvalidArgumentError(
        absl::StrCat("'", text, "' is not a number"));
  };
  add("--max-pages-per-second", "N",
      "maximum 4 KiB pages per second; 0: no limit", number,
      [](int64_t n, v1::Throttle* to) { to->set_max_pages_per_second(n); });
  add("--chunk", "SIZE",
      "size of a chunk; the work can be paused or cancelled between two chunks "
      "(default: 2MiB)",
      ParseBytes,
      [](int64_t bytes, v1::Throttle* to) { to->set_chunk_bytes(bytes); });
  add("--max-lock-hold", "TIME",
      "maximum time to hold mmu_lock (default: 200us)", ParseTime,
      [](absl::Duration time, v1::Throttle* to) {
        *to->mutable_max_lock_hold() = ToProto(time);
      });
  add("--min-pause", "TIME", "minimum pause after each chunk", ParseTime,
      [](absl::Duration time, v1::Throttle* to) {
        *to->mutable_min_pause() = ToProto(time);
      });
  add("--max-flushes-per-second", "N", "TLB flushes per second; 0: no limit",
      number,
      [](int64_t n, v1::Throttle* to) { to->set_max_flushes_per_second(n); });
  add("--max-vcpu-stall-ratio", "RATIO",
      "maximum share of vCPU time lost to stalls, 0 to 1; 0: no limit", ratio,
      [](double value, v1::Throttle* to) {
        to->set_max_vcpu_stall_ratio(value);
      });
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
    return error("does not have two to four parts");
  }
  if (!absl::SimpleAtoi(parts[0], &id))
    return error("the slot is not a number");
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
