// mmuctl memslot set, delete, get, list.

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
#include "google/protobuf/repeated_field.h"
#include "mmud/v1/vm_service.pb.h"

namespace mmud::client {
namespace {

std::string ViewSlot(const v1::Memslot& memslot) {
  google::protobuf::RepeatedPtrField<v1::Memslot> one;
  *one.Add() = memslot;
  return absl::StrCat(ViewMemslots(one), "etag ", memslot.etag());
}

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
  return context.Print(*response,
                       absl::StrCat(ViewSlot(response->memslot()), ", cost ",
                                    ViewCost(response->cost()), "\n"));
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
  request.set_discard_undelivered(arguments.discard);
  const auto response = client.vms().DeleteMemslot(request);
  if (!response.ok()) return response.status();
  return context.Print(
      *response, absl::StrCat("deleted ", request.name(), ", discarded ",
                              ViewUndelivered(response->discarded()), " (",
                              ViewCost(response->cost()), ")\n"));
}

struct GetArguments {
  std::string vm;
  int32_t slot = 0;
};

absl::Status Get(Context& context, Client& client,
                 const GetArguments& arguments) {
  v1::GetMemslotRequest request;
  request.set_name(absl::StrCat(arguments.vm, "/memslots/", arguments.slot));
  const auto response = client.vms().GetMemslot(request);
  if (!response.ok()) return response.status();
  return context.Print(*response,
                       absl::StrCat(ViewSlot(response->memslot()), "\n"));
}

absl::Status List(Context& context, Client& client,
                  const v1::ListMemslotsRequest& arguments) {
  v1::ListMemslotsRequest request = arguments;
  request.set_page_size(1000);
  v1::ListMemslotsResponse all;
  do {
    const auto page = client.vms().ListMemslots(request);
    if (!page.ok()) return page.status();
    all.mutable_memslots()->MergeFrom(page->memslots());
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  return context.Print(all, ViewMemslots(all.memslots()));
}

}  // namespace

void AddMemslotCommands(CLI::App& app, Context& context) {
  CLI::App* group =
      AddGroup(app, "memslot", "Sets, deletes and shows the memslots of a VM.",
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
                    "the guest cannot write to the memslot");
  command->add_option("--etag", set->etag,
                      "only if the slot still has this etag");
  Run(command, context, set, Set);

  auto deletion = std::make_shared<DeleteArguments>();
  command = AddCommand(
      *group, "delete",
      "Deletes a memslot with its contents and its part of the dirty log.",
      "mmuctl memslot delete alpha 1");
  AddVm(command, &deletion->vm);
  AddSlot(command, &deletion->slot);
  command->add_option("--etag", deletion->etag,
                      "only if the slot still has this etag");
  command->add_flag("--discard", deletion->discard,
                    "discard dirty pages that were not acknowledged");
  Run(command, context, deletion, Delete);

  auto get = std::make_shared<GetArguments>();
  command = AddCommand(*group, "get", "Shows one memslot of a VM.",
                       "mmuctl memslot get alpha 1");
  AddVm(command, &get->vm);
  AddSlot(command, &get->slot);
  Run(command, context, get, Get);

  auto list = std::make_shared<v1::ListMemslotsRequest>();
  command = AddCommand(*group, "list", "Lists the memslots of a VM.",
                       "mmuctl memslot list alpha");
  command->alias("ls");
  AddVm(command, list->mutable_vm());
  Run(command, context, list, List);
}

}  // namespace mmud::client
