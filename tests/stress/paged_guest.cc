#include "tests/stress/paged_guest.h"

#include <algorithm>
#include <cerrno>
#include <functional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "mmu_core/base/error.h"
#include "mmu_core/guest/guest_access.h"
#include "mmu_core/guest/hypervisor/l2_program.h"
#include "mmu_core/guest/kernel/kernel_program.h"
#include "mmu_core/guest/kernel/paging_geometry.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/run/guest_options.h"
#include "mmu_core/vm/run/guest_processor.h"
#include "mmu_core/vm/run/l1_processor.h"
#include "mmu_core/vm/vcpu/shadow_vcpu.h"
#include "mmu_core/vm/vm_state.h"
#include "tests/stress/patient_l1_cpu.h"

namespace mmu::stress {
namespace {

// Accesses of a program between two checks of stopping().
constexpr int kBatch = 64;

// True if the host forbids the access for a while.
bool IsForbidden(const absl::Status& status) {
  return DetailOf(status).kvm_errno == EFAULT;
}

// Waits before an access of the guest while the vCPU must stand still, or after
// an access that the host forbids for a while.
using Wait = std::function<void()>;

class PatientCpu final : public GuestCpu {
 public:
  PatientCpu(std::unique_ptr<GuestCpu> cpu, Wait before_access, Wait on_refusal)
      : cpu_(std::move(cpu)),
        before_access_(std::move(before_access)),
        on_refusal_(std::move(on_refusal)) {}

  Outcome Access(Gva gva, int size_bytes, AccessKind kind, Privilege privilege,
                 uint64_t* word, GuestPageFault* fault) override {
    for (;;) {
      before_access_();
      const Outcome outcome =
          cpu_->Access(gva, size_bytes, kind, privilege, word, fault);
      if (outcome != Outcome::kError || !IsForbidden(cpu_->status())) {
        return outcome;
      }
      on_refusal_();
    }
  }
  void EnablePaging(const PagingGeometry& geometry, Gpa cr3) override {
    cpu_->EnablePaging(geometry, cr3);
  }
  void LoadCr3(Gpa cr3, Pcid pcid, Cr3Load how) override {
    cpu_->LoadCr3(cr3, pcid, how);
  }
  void Invlpg(Gva gva) override { cpu_->Invlpg(gva); }
  void InvalidatePcid(Invpcid what, Pcid pcid, Gva gva) override {
    cpu_->InvalidatePcid(what, pcid, gva);
  }
  bool Relax() override {
    before_access_();
    return cpu_->Relax();
  }
  absl::Status status() const override { return cpu_->status(); }

 private:
  const std::unique_ptr<GuestCpu> cpu_;
  const Wait before_access_;
  const Wait on_refusal_;
};

// These do everything often, and check what they read.
KernelProgramOptions BusyKernel(const VmConfig& config, uint64_t seed) {
  KernelProgramOptions options = KernelOptions(config, seed);
  options.check = ReadCheck::kYes;
  options.accesses_per_switch = 64;
  options.accesses_per_fork = 2048;
  options.accesses_per_unmap = 128;
  options.accesses_per_protect = 128;
  return options;
}

SmpGuestOptions BusySmpGuest(const VmConfig& config, const GpaSpace& memory,
                             uint64_t seed) {
  SmpGuestOptions options;
  options.kernel = KernelOptions(config, seed).kernel;
  if (seed % 2 == 0) {
    options.kernel.cached = GuestKernelOptions::Cached::kInterrupt;
  }
  options.cpus = config.vcpu_count;
  // A process can end only if no vCPU runs it.
  options.processes = config.vcpu_count + config.guest_paging.processes;
  if (options.kernel.large_pages == GuestKernelOptions::LargePages::kYes) {
    // Each has at least one large page, besides its tables.
    const uint64_t large = options.kernel.geometry.LargePageBytes() / kPageSize;
    options.processes = std::min(
        options.processes, static_cast<int>(memory.pages() / (large + 16)));
  }
  options.first_word = kFirstProgramWord;
  options.seed = seed;
  return options;
}

L2ProgramOptions BusyHypervisor(const VmConfig& config, uint64_t seed) {
  L2ProgramOptions options = HypervisorOptions(config, seed);
  options.check = ReadCheck::kYes;
  options.accesses_per_unmap = 128;
  options.accesses_per_protect = 128;
  options.accesses_per_remap = 128;
  options.accesses_per_promote = 1024;
  options.accesses_per_demote = 256;
  options.accesses_per_take_dirty = 2048;
  return options;
}

}  // namespace

PagedGuest::PagedGuest(Vm& vm, const GpaSpace& memory, uint64_t seed,
                       Kernels kernels)
    : GuestThreads(vm), memory_(memory), seed_(seed) {
  if (kernels == Kernels::kOneForAll) {
    smp_guest_ =
        SmpGuest::Create(memory, BusySmpGuest(vm.config(), memory, seed));
  }
  Start();
}

absl::StatusOr<PagedGuest::System> PagedGuest::Boot(Vcpu& vcpu) {
  const VmConfig& config = vm().config();
  const auto index = static_cast<uint32_t>(vcpu.index());
  const uint64_t seed = seed_ * 64 + index;
  GpaSpace memory = memory_.Share(index, static_cast<uint32_t>(vcpus()));
  const Wait before_access = [this, &vcpu] { StandStillOutside(vcpu); };
  const Wait on_refusal = [this, &vcpu] { WaitOutside(vcpu); };
  const auto await_ring_room = [this, &vcpu] { return AwaitRingRoom(vcpu); };

  System system;
  if (config.mmu == MmuMode::kNested) {
    system.l1_processor = std::make_unique<PatientL1Cpu>(
        std::make_unique<L1Processor>(vcpu, RootLevel(config), await_ring_room),
        before_access, on_refusal);
    absl::StatusOr<std::unique_ptr<L2Program>> program = L2Program::Start(
        *system.l1_processor, memory, BusyHypervisor(config, seed));
    if (!program.ok()) return program.status();
    system.program = *std::move(program);
    return system;
  }
  system.processor = std::make_unique<PatientCpu>(
      std::make_unique<GuestProcessor>(vcpu, await_ring_room), before_access,
      on_refusal);
  if (!smp_guest_.ok()) return smp_guest_.status();
  if (*smp_guest_ != nullptr) {
    absl::StatusOr<std::unique_ptr<VirtualWorkload>> program =
        (*smp_guest_)->StartCpu(vcpu.index(), *system.processor);
    if (!program.ok()) return program.status();
    system.program = *std::move(program);
    return system;
  }
  absl::StatusOr<std::unique_ptr<KernelProgram>> program =
      KernelProgram::Start(*system.processor, memory, BusyKernel(config, seed));
  if (!program.ok()) return program.status();
  system.program = *std::move(program);
  return system;
}

void PagedGuest::Run(int index) {
  std::mt19937_64 random(seed_ * 64 + static_cast<uint64_t>(index));
  Vcpu& vcpu = VcpuAt(index);
  absl::StatusOr<System> system = Boot(vcpu);
  absl::Status status = system.status();
  uint64_t last_value = 0;
  while (status.ok() && !stopping()) {
    if (pausing()) WaitWhilePaused();
    vcpu.EnterGuest();
    for (int i = 0; i < kBatch && status.ok(); ++i) {
      const uint64_t dice = random();
      uint64_t page = random() % system->program->program_pages();
      if (dice % 2 == 0) page /= 16;
      GuestAccess access;
      access.address_bytes =
          page * kPageSize +
          (kFirstProgramWord + dice / 2 % kProgramWords) * sizeof(uint64_t);
      access.size_bytes = sizeof(uint64_t);
      const uint64_t kind = dice / 16 % 8;
      access.kind = kind < 4   ? AccessKind::kWrite
                    : kind < 7 ? AccessKind::kRead
                               : AccessKind::kExec;
      uint64_t word = uint64_t{0x7a5e} << 48 |
                      static_cast<uint64_t>(index) << 40 | ++last_value;
      status = system->program->Access(access, &word);
    }
    vcpu.ExitGuest();
    CountAccesses(kBatch);
    if (random() % 1024 == 0) FlushUnasked(vcpu);
    if (random() % 4096 == 0) ReleaseRootUnasked(vcpu);
  }
  if (status.ok()) status = system->program->Verify();
  // CANCELLED: a vCPU of the same kernel reports the cause.
  if (!status.ok() && !absl::IsCancelled(status)) {
    Report(
        absl::StrFormat("the guest of vCPU %d: %s", index, status.ToString()));
  }
}

}  // namespace mmu::stress
