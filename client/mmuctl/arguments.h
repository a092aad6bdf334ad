// Options and arguments that several commands share, with their parsing.
//
// Each function adds one option to `app`. The variable for its value must
// outlive the parsing. A value that cannot be parsed is a usage error that
// names the option and the form of its values.

#ifndef CLIENT_MMUCTL_ARGUMENTS_H_
#define CLIENT_MMUCTL_ARGUMENTS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "client/mmu_client/client.h"
#include "client/mmu_client/page_bitmap.h"
#include "client/mmuctl/context.h"
#include "mmud/v1/common.pb.h"
#include "mmud/v1/vm_service.pb.h"

namespace mmud::client {

// Adds a command that runs `action`. `examples` are whole command lines, one
// per line, for its --help.
CLI::App* AddCommand(CLI::App& parent, const std::string& name,
                     const std::string& description,
                     const std::string& examples);

// Adds a command that only has sub-commands.
CLI::App* AddGroup(CLI::App& parent, const std::string& name,
                   const std::string& description, const std::string& examples);

// Runs `action` with `arguments` when the command line ends in `command`.
template <typename Arguments>
void Run(CLI::App* command, Context& context,
         std::shared_ptr<Arguments> arguments,
         absl::Status (*action)(Context&, const Arguments&)) {
  command->callback([&context, arguments, action] {
    context.action = [&context, arguments, action] {
      return action(context, *arguments);
    };
  });
}

// The same for an action that calls the daemon: `client` is the connection. If
// the connection cannot be made, the command ends with its error.
template <typename Arguments>
void Run(CLI::App* command, Context& context,
         std::shared_ptr<Arguments> arguments,
         absl::Status (*action)(Context&, Client& client, const Arguments&)) {
  command->callback([&context, arguments, action] {
    context.action = [&context, arguments, action]() -> absl::Status {
      const absl::StatusOr<Client*> client = context.client();
      if (!client.ok()) return client.status();
      return action(context, **client, *arguments);
    };
  });
}

// The VM as first argument; "alpha" becomes "vms/alpha".
CLI::Option* AddVm(CLI::App* app, std::string* vm);

CLI::Option* AddBytes(CLI::App* app, const std::string& name, int64_t* bytes,
                      const std::string& help);
// Calls `set` with the number of bytes.
CLI::Option* AddBytes(CLI::App* app, const std::string& name,
                      std::function<void(int64_t)> set,
                      const std::string& help);
CLI::Option* AddTime(CLI::App* app, const std::string& name,
                     absl::Duration* time, const std::string& help);
// The same for a time that is not infinite. Calls `set` with each one.
CLI::Option* AddFiniteTime(CLI::App* app, const std::string& name,
                           std::function<void(absl::Duration)> set,
                           const std::string& help);
// A whole number, `min` to `max`. Calls `set` with it.
CLI::Option* AddNumber(CLI::App* app, const std::string& name, int64_t min,
                       int64_t max, std::function<void(int64_t)> set,
                       const std::string& help);
// --cpu-percent, 1 to 100.
CLI::Option* AddCpuPercent(CLI::App* app, std::function<void(int32_t)> set,
                           const std::string& help);
// Can be given several times.
CLI::Option* AddRanges(CLI::App* app, const std::string& name,
                       std::vector<GpaRange>* ranges, const std::string& help);

// `text` in lower case and with hyphens, as the words of choices.
std::string ChoiceWord(absl::string_view text);

// "4k|2m|1g".
template <typename Enum>
std::string ChoiceWords(const std::map<std::string, Enum>& choices) {
  return absl::StrJoin(choices, "|", [](std::string* out, const auto& choice) {
    out->append(choice.first);
  });
}

// The value of a word, regardless of case and of '-' or '_'.
template <typename Enum>
absl::StatusOr<Enum> FindChoice(const std::map<std::string, Enum>& choices,
                                absl::string_view text) {
  if (const auto it = choices.find(ChoiceWord(text)); it != choices.end()) {
    return it->second;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("'", text, "' is not one of ", ChoiceWords(choices)));
}

// One of a few words, for example 4k, 2m, 1g. `choices` maps them to values.
template <typename Enum>
CLI::Option* AddChoice(CLI::App* app, const std::string& name, Enum* value,
                       const std::map<std::string, Enum>& choices,
                       const std::string& help) {
  return app
      ->add_option_function<std::string>(
          name,
          [name, value, choices](const std::string& text) {
            const absl::StatusOr<Enum> found = FindChoice(choices, text);
            if (!found.ok()) {
              throw CLI::ValidationError(name,
                                         std::string(found.status().message()));
            }
            *value = *found;
          },
          help)
      ->type_name(ChoiceWords(choices));
}

CLI::Option* AddPageSize(CLI::App* app, const std::string& name,
                         v1::PageSize* size, const std::string& help);
CLI::Option* AddBacking(CLI::App* app, v1::MemoryBacking* backing);

// A memslot as argument after the VM; and several or no memslots. All commands
// take slots in this way.
CLI::Option* AddSlot(CLI::App* app, int32_t* slot);
CLI::Option* AddSlots(CLI::App* app, std::vector<int32_t>* slots);

// The limits of a throttle that were given. A given limit of 0 means no limit.
// Thread-compatible.
class ThrottleArguments {
 public:
  bool empty() const { return changes_.empty(); }
  // Sets the given limits in `throttle` and leaves the others.
  void ApplyTo(v1::Throttle* throttle) const;
  void Add(std::function<void(v1::Throttle*)> change) {
    changes_.push_back(std::move(change));
  }

 private:
  std::vector<std::function<void(v1::Throttle*)>> changes_;
};

// --max-pages-per-second and so on.
void AddThrottle(CLI::App* app, ThrottleArguments* throttle);

// "SLOT:START+SIZE[:PAGE[:BACKING]]", for example "0:0+2GiB:2m:memfd".
absl::StatusOr<v1::Memslot> ParseMemslot(absl::string_view text);

// "vms/alpha" for "alpha" and for "vms/alpha".
std::string VmName(absl::string_view text);

v1::Extent ToExtent(const GpaRange& range);

}  // namespace mmud::client

#endif  // CLIENT_MMUCTL_ARGUMENTS_H_
