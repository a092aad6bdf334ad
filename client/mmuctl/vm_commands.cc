// mmuctl vm create, get, list, update, pause, resume, delete.

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "client/mmu_client/client.h"
#include "client/mmu_client/error_info.h"
#include "client/mmu_client/time_conversion.h"
#include "client/mmuctl/arguments.h"
#include "client/mmuctl/commands.h"
#include "client/mmuctl/context.h"
#include "client/mmuctl/owned_log.h"
#include "client/mmuctl/views.h"
#include "client/text/error_text.h"
#include "client/text/table.h"
#include "client/text/units.h"
#include "mmud/v1/error_reasons.pb.h"
#include "mmud/v1/vm_service.pb.h"

namespace mmud::client {
namespace {

using Labels = std::map<std::string, std::string>;

// The alternatives of the field Vm.mmu.
enum class MmuChoice { kTdp, kTdpShadow, kShadow, kNested, kStage2 };

struct CreateArguments {
  v1::CreateVmRequest request;
  MmuChoice mmu = MmuChoice::kTdp;
  v1::Stage2Mmu stage2;
  bool has_stage2_options = false;
  v1::GuestPaging guest_paging;
  bool has_guest_paging = false;
  int32_t shadow_page_limit = 0;
  Labels labels;
  int32_t vcpus = 1;
  int64_t memory_bytes = 0;
  v1::PageSize host_page_size = v1::PAGE_SIZE_UNSPECIFIED;
  v1::MemoryBacking backing = v1::MEMORY_BACKING_UNSPECIFIED;
  v1::EntryFormat format = v1::ENTRY_FORMAT_UNSPECIFIED;
  v1::PageSize max_page_size = v1::PAGE_SIZE_UNSPECIFIED;
  int32_t levels = 0;
  v1::SlotZap slot_zap = v1::SLOT_ZAP_UNSPECIFIED;
  bool nx_huge_pages_opt_out = false;
  int32_t dirty_ring_entries = 0;
  v1::Feature accessed_dirty_bits = v1::FEATURE_UNSPECIFIED;
  v1::Feature pml = v1::FEATURE_UNSPECIFIED;
  v1::Feature mmio_caching = v1::FEATURE_UNSPECIFIED;
};

// Adds --label KEY=VALUE, which can be given several times.
void AddLabels(CLI::App* command, Labels* labels) {
  command
      ->add_option_function<std::vector<std::string>>(
          "--label",
          [labels](const std::vector<std::string>& texts) {
            for (const std::string& text : texts) {
              const size_t equals = text.find('=');
              if (equals == std::string::npos) {
                throw CLI::ValidationError(
                    "--label", absl::StrCat("'", text,
                                            "' has no '='; give KEY=VALUE, for "
                                            "example owner=tests"));
              }
              (*labels)[text.substr(0, equals)] = text.substr(equals + 1);
            }
          },
          "labels for your own use; the daemon only stores them")
      ->type_name("KEY=VALUE")
      ->expected(1, 64);
}

// Sets the fields that TdpMmu and ShadowMmu have in common.
template <typename Mmu>
void SetCommon(const CreateArguments& arguments, Mmu* options) {
  options->set_max_page_size(arguments.max_page_size);
  options->set_page_table_levels(arguments.levels);
  options->set_slot_zap(arguments.slot_zap);
  options->set_nx_huge_pages_opt_out(arguments.nx_huge_pages_opt_out);
  options->set_mmio_caching(arguments.mmio_caching);
}

void SetTdp(const CreateArguments& arguments, v1::TdpMmu* tdp) {
  SetCommon(arguments, tdp);
  tdp->set_entry_format(arguments.format);
  tdp->set_accessed_dirty_bits(arguments.accessed_dirty_bits);
  tdp->set_pml(arguments.pml);
}

absl::Status SetStage2(const CreateArguments& arguments, v1::Vm* vm) {
  if (arguments.format != v1::ENTRY_FORMAT_UNSPECIFIED ||
      arguments.levels != 0 ||
      arguments.accessed_dirty_bits != v1::FEATURE_UNSPECIFIED ||
      arguments.pml != v1::FEATURE_UNSPECIFIED ||
      arguments.mmio_caching != v1::FEATURE_UNSPECIFIED ||
      arguments.slot_zap != v1::SLOT_ZAP_UNSPECIFIED ||
      arguments.nx_huge_pages_opt_out) {
    return UsageError(
        "--entry-format, --levels, --ad-bits, --pml, --mmio-caching, "
        "--slot-zap and --nx-huge-pages-opt-out are options of x86 tables; "
        "leave them out, or choose another --mmu than stage2");
  }
  *vm->mutable_stage2() = arguments.stage2;
  vm->mutable_stage2()->set_max_page_size(arguments.max_page_size);
  return absl::OkStatus();
}

absl::Status SetMmu(const CreateArguments& arguments, v1::Vm* vm) {
  if (arguments.has_stage2_options && arguments.mmu != MmuChoice::kStage2) {
    return UsageError(
        "--granule, --ipa-bits, --start-level, --bbm-level, "
        "--eager-split-chunk, --hardware-access-flag, "
        "--hardware-dirty-state and --tlbi-range are options of --mmu stage2; "
        "leave them out, or choose it");
  }
  switch (arguments.mmu) {
    case MmuChoice::kTdp:
      SetTdp(arguments, vm->mutable_tdp());
      break;
    case MmuChoice::kTdpShadow:
      SetTdp(arguments, vm->mutable_tdp_shadow());
      break;
    case MmuChoice::kNested:
      SetTdp(arguments, vm->mutable_nested());
      break;
    case MmuChoice::kShadow:
      // The format cannot be chosen, since shadow pages have the format of
      // ordinary page tables.
      if (arguments.format == v1::ENTRY_FORMAT_EPT ||
          arguments.accessed_dirty_bits == v1::FEATURE_OFF ||
          arguments.pml == v1::FEATURE_ON) {
        return UsageError(
            "--mmu shadow always has entries in NPT's format, with Accessed "
            "and Dirty bits and without PML; leave out --entry-format, "
            "--ad-bits and --pml, or choose another --mmu");
      }
      SetCommon(arguments, vm->mutable_shadow());
      break;
    case MmuChoice::kStage2:
      if (absl::Status s = SetStage2(arguments, vm); !s.ok()) return s;
      break;
  }
  if (arguments.has_guest_paging) {
    *vm->mutable_guest_paging() = arguments.guest_paging;
  }
  vm->set_shadow_page_limit(arguments.shadow_page_limit);
  return absl::OkStatus();
}

absl::Status Create(Context& context, Client& client,
                    const CreateArguments& arguments) {
  v1::CreateVmRequest request = arguments.request;
  v1::Vm& vm = *request.mutable_vm();
  vm.set_vcpu_count(arguments.vcpus);
  vm.set_dirty_ring_entries(arguments.dirty_ring_entries);
  for (const auto& [key, value] : arguments.labels) {
    (*vm.mutable_labels())[key] = value;
  }
  if (absl::Status status = SetMmu(arguments, &vm); !status.ok()) {
    return status;
  }
  if (arguments.memory_bytes > 0) {
    v1::Memslot& memslot = *vm.add_memslots();
    memslot.set_size_bytes(arguments.memory_bytes);
    memslot.set_host_page_size(arguments.host_page_size);
    memslot.set_backing(arguments.backing);
  }
  const auto response = client.vms().CreateVm(request);
  if (!response.ok()) return response.status();
  return context.Print(*response, ViewVm(response->vm()));
}

absl::Status Get(Context& context, Client& client,
                 const v1::GetVmRequest& request) {
  const auto response = client.vms().GetVm(request);
  if (!response.ok()) return response.status();
  return context.Print(*response, ViewVm(response->vm()));
}

absl::Status List(Context& context, Client& client,
                  const v1::ListVmsRequest& request) {
  const auto all = client.vms().ListAllVms(request);
  if (!all.ok()) return all.status();
  Table table({{"NAME"},
               {"STATE"},
               {"MMU"},
               {"VCPUS", Align::kRight},
               {"VCPU STATE"},
               {"MEMORY", Align::kRight},
               {"4K", Align::kRight},
               {"2M", Align::kRight},
               {"1G", Align::kRight}});
  for (const v1::Vm& vm : all->vms()) {
    table.AddRow({vm.name(),
                  ShortName(v1::VmState_Name(vm.state()), "VM_STATE_"),
                  MmuName(vm), absl::StrCat(vm.vcpu_count()),
                  ShortName(v1::VcpuState_Name(vm.vcpu_state()), "VCPU_STATE_"),
                  FormatBytes(vm.memory_size_bytes()),
                  FormatCount(vm.mapped_pages().pages_4k_count()),
                  FormatCount(vm.mapped_pages().pages_2m_count()),
                  FormatCount(vm.mapped_pages().pages_1g_count())});
  }
  return context.Print(*all, table.ToString());
}

struct UpdateArguments {
  std::string vm;
  int32_t shadow_page_limit = 0;
  bool has_shadow_page_limit = false;
  absl::optional<int64_t> eager_split_chunk_bytes;
  Labels labels;
  std::vector<std::string> removed_labels;
  std::string etag;
};

// Number of attempts if other clients change the VM at the same time.
constexpr int kMaxUpdates = 16;

// The API replaces all labels, but labels that are not named must stay. So the
// labels are read first, and the etag of that answer ensures that no other
// client changes them in between. If the etag does not match, the labels are
// read again.
absl::Status FillLabels(Client& client, const UpdateArguments& arguments,
                        v1::UpdateVmRequest* request) {
  v1::GetVmRequest get;
  get.set_name(arguments.vm);
  get.set_view(v1::VM_VIEW_BASIC);
  const auto vm = client.vms().GetVm(get);
  if (!vm.ok()) return vm.status();
  *request->mutable_vm()->mutable_labels() = vm->vm().labels();
  auto& labels = *request->mutable_vm()->mutable_labels();
  for (const auto& [key, value] : arguments.labels) labels[key] = value;
  for (const std::string& key : arguments.removed_labels) labels.erase(key);
  if (arguments.etag.empty()) request->set_etag(vm->vm().etag());
  return absl::OkStatus();
}

absl::Status Update(Context& context, Client& client,
                    const UpdateArguments& arguments) {
  const bool has_labels =
      !arguments.labels.empty() || !arguments.removed_labels.empty();
  if (!has_labels && !arguments.has_shadow_page_limit &&
      !arguments.eager_split_chunk_bytes.has_value()) {
    return UsageError(
        "give the settings to change: --label, --remove-label, "
        "--shadow-page-limit or --eager-split-chunk; the others stay as they "
        "are");
  }
  for (int i = 1;; ++i) {
    v1::UpdateVmRequest request;
    request.mutable_vm()->set_name(arguments.vm);
    request.set_etag(arguments.etag);
    if (arguments.has_shadow_page_limit) {
      request.mutable_update_mask()->add_paths("shadow_page_limit");
      request.mutable_vm()->set_shadow_page_limit(arguments.shadow_page_limit);
    }
    if (arguments.eager_split_chunk_bytes.has_value()) {
      request.mutable_update_mask()->add_paths(
          "stage2.eager_split_chunk_bytes");
      request.mutable_vm()->mutable_stage2()->set_eager_split_chunk_bytes(
          *arguments.eager_split_chunk_bytes);
    }
    if (has_labels) {
      request.mutable_update_mask()->add_paths("labels");
      if (absl::Status status = FillLabels(client, arguments, &request);
          !status.ok()) {
        return status;
      }
    }
    const auto response = client.vms().UpdateVm(request);
    if (response.ok()) {
      return context.Print(*response,
                           absl::StrCat("updated ", arguments.vm, ", etag ",
                                        response->vm().etag(), " (",
                                        ViewCost(response->cost()), ")\n"));
    }
    if (ReasonOf(response.status()) != v1::ETAG_MISMATCH ||
        !arguments.etag.empty() || i == kMaxUpdates) {
      return response.status();
    }
  }
}

struct PauseArguments {
  v1::PauseVcpusRequest request;
  absl::Duration duration = absl::ZeroDuration();
};

absl::Status Pause(Context& context, Client& client,
                   const PauseArguments& arguments) {
  v1::PauseVcpusRequest request = arguments.request;
  if (arguments.duration > absl::ZeroDuration()) {
    *request.mutable_max_duration() = ToProto(arguments.duration);
  }
  const auto response = client.vms().PauseVcpus(request);
  if (!response.ok()) return response.status();
  return context.Print(
      *response, absl::StrCat("vCPUs ", ViewPause(response->pause()), "\n"));
}

absl::Status Resume(Context& context, Client& client,
                    const v1::ResumeVcpusRequest& request) {
  const auto response = client.vms().ResumeVcpus(request);
  if (!response.ok()) return response.status();
  return context.Print(
      *response,
      absl::StrCat(
          "vCPUs ",
          ShortName(v1::VcpuState_Name(response->vcpu_state()), "VCPU_STATE_"),
          "\n"));
}

absl::Status Delete(Context& context, Client& client,
                    const v1::DeleteVmRequest& request) {
  const auto response = client.vms().DeleteVm(request);
  ForgetDeletedVm(context, request.name(), response.status());
  if (!response.ok()) return response.status();
  return context.Print(
      *response, absl::StrCat("deleted ", request.name(), ", discarded ",
                              ViewUndelivered(response->discarded()), " (",
                              ViewCost(response->cost()), ")\n"));
}

// Options for the kind of MMU and for the guest's page tables.
void AddMmu(CLI::App* command,
            const std::shared_ptr<CreateArguments>& arguments) {
  AddChoice(command, "--mmu", &arguments->mmu,
            {{"tdp", MmuChoice::kTdp},
             {"tdp-shadow", MmuChoice::kTdpShadow},
             {"shadow", MmuChoice::kShadow},
             {"nested", MmuChoice::kNested},
             {"stage2", MmuChoice::kStage2}},
            "kind of MMU: tdp, two-dimensional paging; tdp-shadow, the same "
            "with direct shadow pages; shadow, no two-dimensional paging; "
            "nested, the guest is a hypervisor; stage2, arm64 (default: tdp)");
  const auto paging = [arguments] {
    arguments->has_guest_paging = true;
    return &arguments->guest_paging;
  };
  const std::map<std::string, v1::GuestPagingMode> modes = {
      {"32bit", v1::GUEST_PAGING_MODE_32BIT},
      {"pae", v1::GUEST_PAGING_MODE_PAE},
      {"4level", v1::GUEST_PAGING_MODE_4LEVEL},
      {"5level", v1::GUEST_PAGING_MODE_5LEVEL}};
  command
      ->add_option_function<std::string>(
          "--guest-paging",
          [paging, modes](const std::string& text) {
            const absl::StatusOr<v1::GuestPagingMode> mode =
                FindChoice(modes, text);
            if (!mode.ok()) {
              throw CLI::ValidationError("--guest-paging",
                                         std::string(mode.status().message()));
            }
            paging()->set_mode(*mode);
          },
          "format of the page tables that the guest makes (--mmu shadow), or "
          "that L1 makes for L2 (--mmu nested) (default: 4level)")
      ->type_name(ChoiceWords(modes));
  command->add_flag_function(
      "--guest-large-pages",
      [paging](int64_t) { paging()->set_large_pages(v1::FEATURE_ON); },
      "the guest's tables map large pages where possible");
  command->add_option_function<int32_t>(
      "--guest-processes",
      [paging](int32_t count) { paging()->set_process_count(count); },
      "processes that each vCPU runs in turn, with --mmu shadow, 1 to 64 "
      "(default: 1)");
  command->add_flag_function(
      "--no-guest-ad-bits",
      [paging](int64_t) { paging()->set_accessed_dirty_bits(v1::FEATURE_OFF); },
      "L1's EPT tables have no Accessed and Dirty bits, with --mmu nested");
  command->add_option("--shadow-page-limit", arguments->shadow_page_limit,
                      "maximum number of shadow pages, at least 64 (default: "
                      "one per 50 pages of memory)");
}

constexpr char kEagerSplitChunk[] = "--eager-split-chunk";

// Options of --mmu stage2.
void AddStage2(CLI::App* command,
               const std::shared_ptr<CreateArguments>& arguments) {
  const auto stage2 = [arguments] {
    arguments->has_stage2_options = true;
    return &arguments->stage2;
  };
  AddBytes(
      command, "--granule",
      [stage2](int64_t bytes) { stage2()->set_granule_bytes(bytes); },
      "size of a page and of a table, with --mmu stage2: 4KiB, 16KiB or 64KiB "
      "(default: 4KiB)");
  command->add_option_function<int32_t>(
      "--ipa-bits", [stage2](int32_t bits) { stage2()->set_ipa_bits(bits); },
      "bits of a guest-physical address, 32 to 48 (default: 40)");
  command->add_option_function<int32_t>(
      "--start-level",
      [stage2](int32_t level) { stage2()->set_start_level(level); },
      "level at which walks start, 0 to 2, as the Arm manual numbers it "
      "(default: as KVM chooses it)");
  command->add_option_function<int32_t>(
      "--bbm-level",
      [stage2](int32_t level) { stage2()->set_bbm_level(level); },
      "FEAT_BBM, 0 or 2: whether a mapping may change its size without break "
      "before make (default: 0)");
  AddBytes(
      command, kEagerSplitChunk,
      [stage2](int64_t bytes) { stage2()->set_eager_split_chunk_bytes(bytes); },
      "size of the pieces in which blocks are split ahead of the guest's "
      "writes: that of a page or block (default: 0, by faults)");
  command->add_flag_function(
      "--hardware-access-flag",
      [stage2](int64_t) { stage2()->set_hardware_access_flag(v1::FEATURE_ON); },
      "the processor sets the Access flag itself (FEAT_HAFDBS)");
  command->add_flag_function(
      "--hardware-dirty-state",
      [stage2](int64_t) { stage2()->set_hardware_dirty_state(v1::FEATURE_ON); },
      "the processor notes first writes in descriptors (FEAT_HAFDBS, dirty "
      "state); needs --hardware-access-flag");
  command->add_flag_function(
      "--tlbi-range",
      [stage2](int64_t) { stage2()->set_tlbi_range(v1::FEATURE_ON); },
      "the processor invalidates its TLB by range (FEAT_TLBIRANGE)");
}

void AddCreate(CLI::App& vm, Context& context) {
  auto arguments = std::make_shared<CreateArguments>();
  CLI::App* command = AddCommand(
      vm, "create", "Creates a VM with its vCPUs and memory.",
      "mmuctl vm create alpha --vcpus 2 --memory 4GiB --host-page-size 2m\n"
      "mmuctl vm create beta --memslot 0:0+2GiB:2m 1:4GiB+2GiB:1g:memfd\n"
      "mmuctl vm create gamma --memory 1GiB --mmu nested --guest-large-pages");
  command
      ->add_option_function<std::string>(
          "NAME",
          [arguments](const std::string& name) {
            arguments->request.set_vm_id(
                std::string(absl::StripPrefix(name, "vms/")));
          },
          "name of the new VM: a-z, 0-9 and '-'")
      ->required();
  command->add_option("--vcpus", arguments->vcpus, "vCPUs (default: 1)");
  CLI::Option* memory =
      AddBytes(command, "--memory", &arguments->memory_bytes,
               "one memslot of this size at address 0; "
               "without this and --memslot the VM has no memslot");
  memory->check([](const std::string& text) -> std::string {
    const absl::StatusOr<int64_t> bytes = ParseBytes(text);
    if (!bytes.ok() || *bytes != 0) return "";
    return "the size must not be 0; to create a VM without memslots, leave "
           "--memory out";
  });
  AddPageSize(command, "--host-page-size", &arguments->host_page_size,
              "largest mapping of the memory of --memory (default: 4k)")
      ->needs(memory);
  AddBacking(command, &arguments->backing)->needs(memory);
  command
      ->add_option_function<std::vector<std::string>>(
          "--memslot",
          [arguments](const std::vector<std::string>& texts) {
            for (const std::string& text : texts) {
              const absl::StatusOr<v1::Memslot> memslot = ParseMemslot(text);
              if (!memslot.ok()) {
                throw CLI::ValidationError(
                    "--memslot", std::string(memslot.status().message()));
              }
              *arguments->request.mutable_vm()->add_memslots() = *memslot;
            }
          },
          "memslots, each SLOT:START+SIZE[:PAGE[:BACKING]]")
      ->type_name("SPEC")
      ->excludes(memory)
      ->expected(1, 32764);
  AddMmu(command, arguments);
  AddStage2(command, arguments);
  AddChoice(command, "--entry-format", &arguments->format,
            {{"ept", v1::ENTRY_FORMAT_EPT}, {"npt", v1::ENTRY_FORMAT_NPT}},
            "format of page-table entries (default: ept)");
  AddPageSize(command, "--max-page-size", &arguments->max_page_size,
              "largest mapping in the VM (default: 1g)");
  command->add_option("--levels", arguments->levels,
                      "levels of the page tables, 4 or 5 (default: 4)");
  AddChoice(command, "--slot-zap", &arguments->slot_zap,
            {{"all", v1::SLOT_ZAP_ALL}, {"slot", v1::SLOT_ZAP_SLOT}},
            "mappings to zap when a memslot is deleted or moved: all of the "
            "VM, or the slot's (default: all)");
  command->add_option(
      "--dirty-ring-entries", arguments->dirty_ring_entries,
      "entries of each vCPU's dirty ring, a power of two, 256 to 65536; dirty "
      "pages are then logged in rings (default: 0, logged in bitmaps)");
  command->add_flag("--nx-huge-pages-opt-out", arguments->nx_huge_pages_opt_out,
                    "make this VM's huge mappings executable, regardless of "
                    "the daemon's --nx-huge-pages; the daemon must allow it");
  const auto feature = [command](const char* name, v1::Feature* value,
                                 const char* help) {
    AddChoice(command, name, value,
              {{"on", v1::FEATURE_ON}, {"off", v1::FEATURE_OFF}}, help);
  };
  feature("--ad-bits", &arguments->accessed_dirty_bits,
          "the processor sets Accessed and Dirty bits (default: on)");
  feature("--pml", &arguments->pml,
          "page-modification logging: the processor logs the pages that a vCPU "
          "writes (default: off)");
  feature("--mmio-caching", &arguments->mmio_caching,
          "install MMIO entries for accesses outside of all memslots, which "
          "makes later ones fast (default: on)");
  AddLabels(command, &arguments->labels);
  Run(command, context, arguments, Create);
}

void AddUpdate(CLI::App& vm, Context& context) {
  auto arguments = std::make_shared<UpdateArguments>();
  CLI::App* command = AddCommand(
      vm, "update",
      "Changes the labels of a VM, its limit on shadow pages, or the size of "
      "the pieces in which its stage-2 blocks are split. Settings that are not "
      "given stay as they are.",
      "mmuctl vm update alpha --label owner=tests --remove-label old\n"
      "mmuctl vm update alpha --shadow-page-limit 1000\n"
      "mmuctl vm update arm --eager-split-chunk 2MiB");
  AddVm(command, &arguments->vm);
  AddLabels(command, &arguments->labels);
  command
      ->add_option("--remove-label", arguments->removed_labels,
                   "labels to remove, by their keys")
      ->type_name("KEY")
      ->expected(1, 64);
  command->add_option_function<int32_t>(
      "--shadow-page-limit",
      [arguments](int32_t pages) {
        arguments->has_shadow_page_limit = true;
        arguments->shadow_page_limit = pages;
      },
      "new maximum number of shadow pages, at least 64; if the VM has more, "
      "the oldest are zapped");
  AddBytes(
      command, kEagerSplitChunk,
      [arguments](int64_t bytes) {
        arguments->eager_split_chunk_bytes = bytes;
      },
      "new size of the pieces of an eager split, with stage-2 tables; 0: "
      "blocks are split by faults");
  command->add_option("--etag", arguments->etag,
                      "only if the VM still has this etag");
  Run(command, context, arguments, Update);
}

}  // namespace

void AddVmCommands(CLI::App& app, Context& context) {
  CLI::App* vm = AddGroup(app, "vm", "Creates, shows, pauses and deletes VMs.",
                          "mmuctl vm create alpha --vcpus 2 --memory 4GiB\n"
                          "mmuctl vm list\n"
                          "mmuctl --json vm get alpha\n"
                          "mmuctl vm delete alpha");
  AddCreate(*vm, context);

  auto get = std::make_shared<v1::GetVmRequest>();
  CLI::App* command = AddCommand(*vm, "get", "Shows one VM and its memslots.",
                                 "mmuctl vm get alpha");
  AddVm(command, get->mutable_name());
  Run(command, context, get, Get);

  auto list = std::make_shared<v1::ListVmsRequest>();
  command = AddCommand(*vm, "list", "Lists the VMs.", "mmuctl vm list");
  command->alias("ls");
  Run(command, context, list, List);

  AddUpdate(*vm, context);

  auto pause = std::make_shared<PauseArguments>();
  command = AddCommand(*vm, "pause",
                       "Pauses the vCPUs. When the command returns, they "
                       "access no guest memory until they are resumed or the "
                       "time is over. Pausing again extends the pause.",
                       "mmuctl vm pause alpha\n"
                       "mmuctl vm pause alpha --for 5m");
  AddVm(command, pause->request.mutable_vm());
  AddTime(command, "--for", &pause->duration,
          "maximum length of the pause, up to 1h (default: 10s)");
  Run(command, context, pause, Pause);

  auto resume = std::make_shared<v1::ResumeVcpusRequest>();
  command = AddCommand(*vm, "resume", "Ends the pause of the vCPUs.",
                       "mmuctl vm resume alpha");
  AddVm(command, resume->mutable_vm());
  Run(command, context, resume, Resume);

  auto deletion = std::make_shared<v1::DeleteVmRequest>();
  command = AddCommand(*vm, "delete", "Deletes a VM and frees its memory.",
                       "mmuctl vm delete alpha");
  AddVm(command, deletion->mutable_name());
  command->add_option("--etag", *deletion->mutable_etag(),
                      "only if the VM still has this etag");
  command->add_flag_function(
      "--force", [deletion](int64_t) { deletion->set_force(true); },
      "discard pages of the dirty log that were not acknowledged");
  Run(command, context, deletion, Delete);
}

}  // namespace mmud::client
