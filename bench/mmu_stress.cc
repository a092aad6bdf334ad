#include "bench/mmu_stress.h"

#include <atomic>
#include <cerrno>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "bench/scenario.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/error.h"
#include "mmu_core/vm/slots/host_notifier.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu::bench {
namespace {

constexpr uint64_t kFirstGpa = uint64_t{4} << 30;

absl::Status Unexpected(const Vcpu& vcpu, const char* stage, uint64_t gpa,
                        AccessOutcome outcome) {
  return absl::InternalError(absl::StrFormat(
      "mmu_stress: %s: vCPU %d: an access to gpa 0x%x ended with outcome %d",
      stage, vcpu.index(), gpa, static_cast<int>(outcome)));
}

// One run, stage by stage.
class Run {
 public:
  Run(const MmuStressOptions& options, std::ostream& out)
      : options_(options),
        out_(out),
        pages_(options.memory_bytes >> kPageShift) {}

  absl::Status All() {
    if (absl::Status status = CreateVm(); !status.ok()) return status;
    out_ << absl::StrFormat(
                "Running with %d MiB of guest memory and %d vCPUs\n",
                options_.memory_bytes >> 20, options_.vcpus)
         << std::flush;
    absl::Status status = Stages();
    if (!status.ok()) return status;
    const AuditReport report = vm_->Audit();
    if (report.ok()) return absl::OkStatus();
    return absl::InternalError(
        absl::StrCat("mmu_stress: ", absl::StrJoin(report.violations, "\n")));
  }

 private:
  absl::Status CreateVm() {
    VmConfig config;
    config.vcpu_count = options_.vcpus;
    for (uint32_t i = 0; i < slots(); ++i) config.memslots.push_back(Slot(i));
    absl::StatusOr<std::unique_ptr<Vm>> vm = Vm::Create(config);
    if (!vm.ok()) return vm.status();
    vm_ = *std::move(vm);
    return absl::OkStatus();
  }

  absl::Status Stages() {
    VcpuThreads vcpus(*vm_);
    const auto write_all = [this](Vcpu& vcpu) { return WriteAll(vcpu); };
    const absl::Duration run1 = vcpus.Run(write_all);
    const absl::Duration reset = vcpus.Run([](Vcpu& vcpu) {
      vcpu.ExitGuest();
      vcpu.ReleaseRoot();
      vcpu.EnterGuest();
      return absl::OkStatus();
    });
    const absl::Duration run2 = vcpus.Run(write_all);
    const absl::Duration ro = Timed([&] {
      vcpus.Start([this](Vcpu& vcpu) { return WriteUntilForbidden(vcpu); });
      SetAccess(HostAccess::kReadOnly);
      vcpus.Wait();
    });
    const absl::Duration rw = Timed([&] {
      SetAccess(HostAccess::kReadWrite);
      vcpus.Run(write_all);
    });
    if (absl::Status status = vcpus.status(); !status.ok()) return status;
    out_ << "run1 = " << Seconds(run1) << ", reset = " << Seconds(reset)
         << ", run2 = " << Seconds(run2) << ", ro = " << Seconds(ro)
         << ", rw = " << Seconds(rw) << "\n"
         << std::flush;
    return TakeMemoryAway(vcpus);
  }

  // Deletes the slots with even numbers and unmaps the first half of the others
  // while the vCPUs run. Then checks which slots the vCPUs can still access.
  absl::Status TakeMemoryAway(VcpuThreads& vcpus) {
    std::atomic<bool> stop{false};
    vcpus.Start([&](Vcpu& vcpu) {
      absl::Status status;
      while (status.ok() && !stop.load()) status = AccessAll(vcpu, stop);
      return status;
    });
    absl::Status status;
    for (uint32_t i = 0; i < slots() && status.ok(); i += 2) {
      MemslotConfig gone = Slot(i);
      gone.size_bytes = 0;
      status = vm_->SetMemslot(gone);
    }
    ForEachSlot([this](const Memslot& slot) {
      const HvaRange half = {slot.hva, slot.hva + options_.slot_bytes / 2};
      InvalidateRangeStart(vm_->state(), half, MayYield::kYes);
      InvalidateRangeEnd(vm_->state(), half);
    });
    stop.store(true);
    vcpus.Wait();
    if (!status.ok()) return status;
    vcpus.Run([this](Vcpu& vcpu) { return ProbeSlots(vcpu); });
    return vcpus.status();
  }

  // --- On a vCPU's thread ---

  uint64_t FirstPage(int vcpu) const { return pages_ * vcpu / options_.vcpus; }

  template <typename Fn>
  absl::Status ForEachPage(const Vcpu& vcpu, Fn fn) const {
    absl::Status status;
    for (uint64_t page = FirstPage(vcpu.index());
         page < FirstPage(vcpu.index() + 1) && status.ok(); ++page) {
      status = fn(kFirstGpa + (page << kPageShift));
    }
    return status;
  }

  absl::Status WriteAll(Vcpu& vcpu) const {
    absl::Status status = ForEachPage(vcpu, [&](uint64_t gpa) {
      uint64_t word = gpa;
      return AccessOrError(vcpu, Gpa(gpa), AccessKind::kWrite, &word);
    });
    if (!status.ok()) return status;
    return ForEachPage(vcpu, [&](uint64_t gpa) { return Verify(vcpu, gpa); });
  }

  // Checks that the word at `gpa` is the one that WriteAll has written.
  absl::Status Verify(Vcpu& vcpu, uint64_t gpa) const {
    if (options_.backing == BackingKind::kMetadataOnly) return absl::OkStatus();
    uint64_t word = 0;
    absl::Status status =
        AccessOrError(vcpu, Gpa(gpa), AccessKind::kRead, &word);
    if (!status.ok() || word == gpa) return status;
    return absl::DataLossError(absl::StrFormat(
        "mmu_stress: gpa 0x%x reads 0x%x, not what was written", gpa, word));
  }

  absl::Status WriteUntilForbidden(Vcpu& vcpu) const {
    for (;;) {
      bool forbidden = false;
      const absl::Status status = ForEachPage(vcpu, [&](uint64_t gpa) {
        if (forbidden) return absl::OkStatus();
        uint64_t word = gpa;
        const AccessOutcome outcome =
            vcpu.Access(Gpa(gpa), AccessKind::kWrite, &word);
        if (outcome == AccessOutcome::kDone) return absl::OkStatus();
        forbidden = outcome == AccessOutcome::kError &&
                    DetailOf(vcpu.status()).kvm_errno == EFAULT;
        // A read-only page must still be readable.
        return forbidden ? Verify(vcpu, gpa)
                         : Unexpected(vcpu, "ro", gpa, outcome);
      });
      if (!status.ok() || forbidden) return status;
    }
  }

  // Writes to all pages of the vCPU. An access may find no memory only if the
  // slot is among those that are being deleted.
  absl::Status AccessAll(Vcpu& vcpu, const std::atomic<bool>& stop) const {
    return ForEachPage(vcpu, [&](uint64_t gpa) {
      if (stop.load(std::memory_order_relaxed)) return absl::OkStatus();
      uint64_t word = gpa;
      const AccessOutcome outcome =
          vcpu.Access(Gpa(gpa), AccessKind::kWrite, &word);
      const bool goes = SlotOf(gpa) % 2 == 0;
      return outcome == AccessOutcome::kDone ||
                     (goes && outcome == AccessOutcome::kEmulated)
                 ? absl::OkStatus()
                 : Unexpected(vcpu, "delete", gpa, outcome);
    });
  }

  absl::Status ProbeSlots(Vcpu& vcpu) const {
    for (uint64_t i = 0; i < slots(); ++i) {
      const uint64_t gpa = kFirstGpa + i * options_.slot_bytes;
      uint64_t word = 0;
      const AccessOutcome outcome =
          vcpu.Access(Gpa(gpa), AccessKind::kRead, &word);
      if (outcome !=
          (i % 2 == 0 ? AccessOutcome::kEmulated : AccessOutcome::kDone)) {
        return Unexpected(vcpu, "after delete", gpa, outcome);
      }
    }
    return absl::OkStatus();
  }

  // --- The host ---

  // Calls `fn` for each slot that exists. No other thread changes slots.
  template <typename Fn>
  void ForEachSlot(Fn fn) {
    std::vector<std::shared_ptr<const Memslot>> all;
    {
      MutexLock lock(vm_->state().slots.slots_lock);
      all = vm_->state().slots.Active(0).owned_slots();
    }
    for (const auto& slot : all) fn(*slot);
  }

  void SetAccess(HostAccess access) {
    ForEachSlot([&](const Memslot& slot) {
      SetHostAccess(vm_->state(), {slot.hva, slot.hva + options_.slot_bytes},
                    access);
    });
  }

  uint32_t slots() const {
    return static_cast<uint32_t>(options_.memory_bytes / options_.slot_bytes);
  }
  uint64_t SlotOf(uint64_t gpa) const {
    return (gpa - kFirstGpa) / options_.slot_bytes;
  }
  MemslotConfig Slot(uint32_t i) const {
    MemslotConfig slot;
    slot.slot = i;
    slot.gpa = Gpa(kFirstGpa + i * options_.slot_bytes);
    slot.size_bytes = options_.slot_bytes;
    slot.backing = options_.backing;
    slot.host_page_level = options_.huge_pages ? Level::k2M : Level::k4K;
    return slot;
  }

  const MmuStressOptions& options_;
  std::ostream& out_;
  const uint64_t pages_;
  std::unique_ptr<Vm> vm_;
};

}  // namespace

const char kMmuStressHelp[] =
    "mmu_bench --scenario mmu_stress [OPTIONS]\n"
    "\n"
    "The stages of KVM's mmu_stress_test, with its options and its last line.\n"
    "\n"
    "  -c N   vCPUs (2)\n"
    "  -m N   memory in GiB, without contents (128)\n"
    "  -s N   size of a memslot in GiB, which must divide the memory (2)\n"
    "  -H     the host maps the memory with pages of 2 MiB\n";

absl::StatusOr<MmuStressOptions> ParseMmuStress(
    absl::Span<const std::string> args) {
  MmuStressOptions o;
  uint64_t memory = o.memory_bytes >> 30;
  uint64_t slot = o.slot_bytes >> 30;
  absl::Status status =
      ParseScenario("mmu_stress", args,
                    {
                        NumberOption('c', 1, kMaxVcpus, &o.vcpus),
                        FlagOption('h', &o.help),
                        FlagOption('H', &o.huge_pages),
                        NumberOption('m', 1, 65536, &memory),
                        NumberOption('s', 1, 4096, &slot),
                    });
  if (!status.ok()) return status;
  if (memory % slot != 0) {
    return BadOption("mmu_stress: -s", absl::StrCat(slot),
                     absl::StrCat("a divisor of -m ", memory));
  }
  o.memory_bytes = memory << 30;
  o.slot_bytes = slot << 30;
  return o;
}

absl::Status RunMmuStress(const MmuStressOptions& options, std::ostream& out) {
  return Run(options, out).All();
}

}  // namespace mmu::bench
