#include "client/mmuctl/completion.h"

#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "client/mmu_client/client.h"
#include "client/mmuctl/arguments.h"
#include "client/mmuctl/command_tree.h"
#include "client/mmuctl/context.h"
#include "client/mmuctl/views.h"
#include "google/longrunning/operations.pb.h"
#include "google/protobuf/descriptor.h"
#include "mmud/v1/vm_service.pb.h"

namespace mmud::client {
namespace {

constexpr char kBash[] = R"(# Loaded by bash: source <(mmuctl completion bash)
_mmuctl() {
  local line="${COMP_LINE:0:COMP_POINT}" candidate typed
  local -a words
  read -ra words <<< "$line"
  [[ "$line" == *[[:space:]] ]] && words+=("")
  # bash takes words apart at '=' and ':' too, and wants the last part alone.
  typed="${words[-1]}"
  typed="${typed%"${COMP_WORDS[COMP_CWORD]#[=:]}"}"
  COMPREPLY=()
  while IFS= read -r candidate; do
    if [[ "$candidate" == ":files" ]]; then
      mapfile -t COMPREPLY < <(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")
      compopt -o filenames 2> /dev/null
      return
    fi
    candidate="${candidate%%$'\t'*}"
    COMPREPLY+=("${candidate#"$typed"}")
  done < <(mmuctl __complete -- "${words[@]:1}" 2> /dev/null)
}
complete -F _mmuctl mmuctl
)";

constexpr char kZsh[] = R"(#compdef mmuctl
# Loaded by zsh: source <(mmuctl completion zsh), or as _mmuctl from $fpath
_mmuctl() {
  local line
  local -a candidates
  for line in "${(@f)$(mmuctl __complete -- "${(@)words[2,CURRENT]}" 2> /dev/null)}"; do
    if [[ "$line" == ":files" ]]; then
      _files
      return
    fi
    [[ -n "$line" ]] || continue
    candidates+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
  done
  _describe -V mmuctl candidates
}
if [[ "${funcstack[1]}" == "_mmuctl" ]]; then
  _mmuctl "$@"
elif (( $+functions[compdef] )); then
  compdef _mmuctl mmuctl
fi
)";

constexpr char kFish[] = R"(# Loaded by fish: mmuctl completion fish | source
function __mmuctl_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l lines (mmuctl __complete -- $words[2..-1] 2> /dev/null)
    if test "$lines[1]" = ":files"
        __fish_complete_path (commandline -ct)
    else
        printf '%s\n' $lines
    end
end
complete -c mmuctl -f -k -a '(__mmuctl_complete)'
)";

// The position in the command tree that the words before the cursor lead to.
struct Place {
  const CLI::App* command;
  const CLI::Option* wants_value =
      nullptr;  // of the last word, if it is an option
  std::vector<std::string> positionals;
};

Place Walk(const CLI::App& root, Context& context,
           const std::vector<std::string>& words) {
  Place place{&root, nullptr, {}};
  bool all_positional = false;
  for (size_t i = 0; i + 1 < words.size(); ++i) {
    const std::string& word = words[i];
    if (place.wants_value != nullptr) {
      if (place.wants_value->check_name("--address")) context.address = word;
      place.wants_value = nullptr;
    } else if (word == "--") {
      all_positional = true;
    } else if (!all_positional && absl::StartsWith(word, "-")) {
      const size_t value = word.find('=');
      const CLI::Option* flag = FindFlag(*place.command, word.substr(0, value));
      if (flag == nullptr || !TakesValue(*flag)) continue;
      if (value == word.npos) {
        place.wants_value = flag;
      } else if (flag->check_name("--address")) {
        context.address = word.substr(value + 1);
      }
    } else if (const CLI::App* below = FindCommand(*place.command, word)) {
      place.command = below;
    } else {
      place.positionals.push_back(word);
    }
  }
  return place;
}

void AddVms(Client& client, std::vector<CompletionCandidate>* candidates) {
  v1::ListVmsRequest request;
  do {
    const auto page = client.vms().ListVms(request);
    if (!page.ok()) return;
    for (const v1::Vm& vm : page->vms()) {
      candidates->push_back(
          {std::string(absl::StripPrefix(vm.name(), "vms/")), MmuName(vm)});
    }
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
}

void AddSlotsOf(Client& client, const std::string& vm,
                std::vector<CompletionCandidate>* candidates) {
  v1::ListMemslotsRequest request;
  request.set_vm(VmName(vm));
  request.set_page_size(1000);
  do {
    const auto page = client.vms().ListMemslots(request);
    if (!page.ok()) return;
    for (const v1::Memslot& slot : page->memslots()) {
      candidates->push_back({absl::StrCat(slot.slot()),
                             slot.readonly() ? "read-only" : "read-write"});
    }
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
}

void AddOperations(Client& client,
                   std::vector<CompletionCandidate>* candidates) {
  google::longrunning::ListOperationsRequest request;
  do {
    const auto page = client.operations().List(request);
    if (!page.ok()) return;
    for (const auto& operation : page->operations()) {
      const OperationView view = ViewOperation(operation);
      candidates->push_back(
          {std::string(absl::StripPrefix(operation.name(), "operations/")),
           absl::StrCat(view.kind, " of ", view.vm, ", ", view.state)});
    }
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
}

void AddMethods(Client& client, std::vector<CompletionCandidate>* candidates) {
  const auto services = client.dynamic().ListServices();
  if (!services.ok()) return;
  for (const std::string& name : *services) {
    const auto service = client.dynamic().FindService(name);
    if (!service.ok()) continue;
    for (int i = 0; i < (*service)->method_count(); ++i) {
      const auto* method = (*service)->method(i);
      candidates->push_back({absl::StrCat(name, "/", method->name()),
                             method->input_type()->full_name()});
    }
  }
}

// The words that an option accepts, or file names. An option such as "--output
// FILE" takes a file of this machine; "--trace" names a file on the daemon's
// side.
void AddValuesOf(const CLI::Option& option, const std::string& prefix,
                 Completion* completion) {
  const std::vector<std::string> choices = ChoicesOf(option);
  for (const std::string& choice : choices) {
    completion->candidates.push_back({prefix + choice, ""});
  }
  if (option.check_name("--output") || option.check_name("--html") ||
      option.check_name("--valgrind")) {
    completion->files = true;
  }
}

// The candidates for a positional argument: its choices, or the existing names
// of its kind.
void AddValues(const CLI::App& root, Context& context, const Place& place,
               const CLI::Option& positional, Completion* completion) {
  AddValuesOf(positional, "", completion);
  const std::string argument = TermOf(positional);
  if (argument == "FILE" || argument == "PROGRAM") {
    completion->files = true;
    return;
  }
  if (argument == "COMMAND") {
    const CLI::App* command = &root;
    for (const std::string& word : place.positionals) {
      if (command != nullptr) command = FindCommand(*command, word);
    }
    if (command == nullptr) return;
    for (const CLI::App* below : CommandsOf(*command)) {
      completion->candidates.push_back({below->get_name(), SummaryOf(*below)});
    }
    return;
  }
  if (!ChoicesOf(positional).empty()) return;
  // The shell waits until this command ends.
  context.timeout = absl::Seconds(1);
  const absl::StatusOr<Client*> client = context.client();
  if (!client.ok()) return;
  if (argument == "VM") {
    AddVms(**client, &completion->candidates);
  } else if (argument == "OPERATION") {
    AddOperations(**client, &completion->candidates);
  } else if (argument == "SLOT" && !place.positionals.empty()) {
    AddSlotsOf(**client, place.positionals.front(), &completion->candidates);
  } else if (argument == "METHOD") {
    AddMethods(**client, &completion->candidates);
  }
}

void AddFlags(const CLI::App& command,
              std::vector<CompletionCandidate>* candidates) {
  for (const CLI::App* app = &command; app != nullptr;
       app = app->get_parent()) {
    for (const CLI::Option* option : FlagsOf(*app)) {
      // All commands have --help, so only the completed command's --help is a
      // candidate.
      if (app != &command && option->check_name("--help")) continue;
      for (const std::string& name : option->get_lnames()) {
        candidates->push_back({"--" + name, option->get_description()});
      }
    }
  }
}

}  // namespace

Completion Complete(const CLI::App& root, Context& context,
                    const std::vector<std::string>& words) {
  Completion all;
  if (words.empty()) return all;
  const std::string& word = words.back();
  const Place place = Walk(root, context, words);
  const size_t value = word.find('=');
  if (place.wants_value != nullptr) {
    AddValuesOf(*place.wants_value, "", &all);
  } else if (absl::StartsWith(word, "-") && value != word.npos) {
    const CLI::Option* flag = FindFlag(*place.command, word.substr(0, value));
    if (flag != nullptr) {
      AddValuesOf(*flag, word.substr(0, value + 1), &all);
    }
  } else if (absl::StartsWith(word, "-")) {
    AddFlags(*place.command, &all.candidates);
  } else if (const auto below = CommandsOf(*place.command); !below.empty()) {
    for (const CLI::App* command : below) {
      all.candidates.push_back({command->get_name(), SummaryOf(*command)});
    }
  } else {
    const std::vector<const CLI::Option*> arguments =
        PositionalsOf(*place.command);
    size_t at = place.positionals.size();
    // The last positional argument may be given several times.
    if (at >= arguments.size() && !arguments.empty() &&
        arguments.back()->get_items_expected_max() > 1) {
      at = arguments.size() - 1;
    }
    if (at < arguments.size()) {
      AddValues(root, context, place, *arguments[at], &all);
    }
  }
  Completion fitting;
  fitting.files = all.files;
  for (CompletionCandidate& candidate : all.candidates) {
    if (absl::StartsWith(candidate.word, word)) {
      fitting.candidates.push_back(std::move(candidate));
    }
  }
  return fitting;
}

std::string CompletionText(const Completion& completion) {
  if (completion.files) return ":files\n";
  std::string text;
  for (const CompletionCandidate& candidate : completion.candidates) {
    absl::StrAppend(&text, candidate.word, "\t", candidate.description, "\n");
  }
  return text;
}

absl::StatusOr<std::string> CompletionScript(const std::string& shell) {
  if (shell == "bash") return std::string(kBash);
  if (shell == "zsh") return std::string(kZsh);
  if (shell == "fish") return std::string(kFish);
  return absl::NotFoundError(absl::StrCat("no completion for ", shell));
}

}  // namespace mmud::client
