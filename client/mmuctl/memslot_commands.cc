// mmuctl memslot set, delete, list.

#include <memory>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "client/mmu_client/client.h"
#include "client/mmuctl/arguments.h"
#include "client/mmuctl/commands.h"
#include "client/mmuctl/context.h"
#include "client/mmuctl/views.h"
#include "client/text/units.h"
#include "mmud/v1/vm_service.pb.h"

namespace mmud::client {
namespace {

struct SetArguments {
  std::string vm;
  std::string etag;
  int32_t slot = 0;
  int64_t gpa_bytes = 0;
  int64_t size_bytes = 0;
  v1::PageSize host_page_size = v1::PAGE_SIZE_UNSPECIFIED;
  v1::MemoryBacking backing = v1::MEMORY_BACKING_UNSPECIFIED;
  bool readonly = false;
};

absl::Status Set(Context& context, Client& client,
                 const SetArguments& arguments) {
  v1::SetMemslotRequest request;
  request.set_vm(arguments.vm);
  request.set_etag(arguments.etag);
  v1::Memslot& memslot = *request.mutable_memslot();
  memslot.set_slot(arguments.slot);
  memslot.set_gpa_bytes(arguments.gpa_bytes);
  memslot.set_size_bytes(arguments.size_bytes);
  memslot.set_host_page_size(arguments.host_page_size);
  memslot.set_backing(arguments.backing);
  memslot.set_readonly(arguments.readonly);
  const auto response = client.vms().SetMemslot(request);
  if (!response.ok()) return response.status();
  v1::Vm view;
  *view.add_memslots() = response->memslot();
  return context.Print(
      *response,
      absl::StrCat(ViewMemslots(view), "etag ", response->memslot().etag(),
                   ", cost ", ViewCost(response->cost()), "\n"));
}

struct DeleteArguments {
  std::string vm;
  int32_t slot = 0;
  std::string etag;
  bool discard = false;
};

absl::Status Delete(Context& context, Client& client,
                    const DeleteArguments& arguments) {
  v1::DeleteMemslotRequest request;
  request.set_name(absl::StrCat(arguments.vm, "/memslots/", arguments.slot));
  request.set_etag(arguments.etag);
  request.set_discard_unacked(arguments.discard);
  const auto response = client.vms().DeleteMemslot(request);
  if (!response.ok()) return response.status();
  return context.Print(
      *response,
      absl::StrCat("deleted ", request.name(), ", discarded ",
                   FormatCount(response->discarded_page_count()),
                   " dirty pages (", ViewCost(response->cost()), ")\n"));
}

absl::Status List(Context& context, Client& client,
                  const v1::GetVmRequest& request) {
  const auto response = client.vms().GetVm(request);
  if (!response.ok()) return response.status();
  return context.Print(*response, ViewMemslots(response->vm()));
}

}  // namespace

void AddMemslotCommands(CLI::App& app, Context& context) {
  CLI::App* group =
      AddGroup(app, "memslot", "Sets, deletes and lists a VM's memory.",
               "mmuctl memslot set alpha 1 --gpa 4GiB --size 1GiB "
               "--host-page-size 1g\n"
               "mmuctl memslot delete alpha 1");

  auto set = std::make_shared<SetArguments>();
  CLI::App* command = AddCommand(
      *group, "set",
      "Creates a memslot, or moves an existing one to another address.",
      "mmuctl memslot set alpha 1 --gpa 4GiB --size 1GiB\n"
      "mmuctl memslot set alpha 1 --gpa 8GiB --size 1GiB   (moves it)");
  AddVm(command, &set->vm);
  AddSlot(command, &set->slot);
  AddBytes(command, "--gpa", &set->gpa_bytes, "first byte")->required();
  AddBytes(command, "--size", &set->size_bytes, "length")->required();
  AddPageSize(command, "--host-page-size", &set->host_page_size,
              "largest mapping of this slot (default: 4k)");
  AddBacking(command, &set->backing);
  command->add_flag("--readonly", set->readonly,
                    "guest writes are not let through");
  command->add_option("--etag", set->etag,
                      "only if the slot is still as this etag says");
  Run(command, context, set, Set);

  auto deletion = std::make_shared<DeleteArguments>();
  command = AddCommand(*group, "delete",
                       "Deletes a memslot with its contents and dirty log.",
                       "mmuctl memslot delete alpha 1");
  AddVm(command, &deletion->vm);
  AddSlot(command, &deletion->slot);
  command->add_option("--etag", deletion->etag,
                      "only if the slot is still as this etag says");
  command->add_flag("--discard-unacked", deletion->discard,
                    "delete although dirty pages were not cleared");
  Run(command, context, deletion, Delete);

  auto list = std::make_shared<v1::GetVmRequest>();
  command = AddCommand(*group, "list", "Lists the memslots of a VM.",
                       "mmuctl memslot list alpha");
  command->alias("ls");
  AddVm(command, list->mutable_name());
  Run(command, context, list, List);
}

}  // namespace mmud::client
