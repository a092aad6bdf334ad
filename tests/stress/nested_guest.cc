#include "tests/stress/nested_guest.h"

#include <memory>
#include <thread>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_format.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest/guest_access.h"
#include "mmu_core/guest/hypervisor/l1_hypervisor.h"
#include "mmu_core/guest/hypervisor/l2_cpu.h"
#include "mmu_core/guest/kernel/kernel_program.h"
#include "mmu_core/tlb/tlb_options.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/run/guest_options.h"
#include "mmu_core/vm/run/missing_memory.h"
#include "mmu_core/vm/vcpu/shadow_vcpu.h"
#include "mmu_core/vm/vm_state.h"
#include "tests/stress/paged_guest.h"
#include "tests/stress/patient_l1_cpu.h"

namespace mmu::stress {
namespace {

// Steps between two checks of stopping().
constexpr int kBatch = 64;
// Pages of an L2 guest with a kernel.
constexpr uint64_t kKernelPages = PagesPer(Level::k2M);

SmpL2Options OptionsFor(Vm& vm, int vcpus, uint64_t seed) {
  SmpL2Options options;
  options.hypervisor = HypervisorOptions(vm.config(), seed).hypervisor;
  // A large page for each of the distant pages does not fit.
  options.hypervisor.max_page = Level::k4K;
  options.cpus = vcpus;
  // More than the current root and the three that a vCPU keeps.
  options.guests = 5;
  options.pages = 30;
  options.stride_bytes = BytesPer(Level::k2M);
  options.other_guests = vcpus;
  options.other_pages = kKernelPages;
  options.first_word = kFirstProgramWord;
  options.seed = seed;
  // Merging needs 2 MiB of L1's memory for each page.
  options.steps_per_promote = 0;
  return options;
}

KernelProgramOptions KernelFor(uint64_t seed) {
  KernelProgramOptions options;
  options.processes = 2;
  options.seed = seed;
  options.check = ReadCheck::kYes;
  options.accesses_per_switch = 32;
  options.accesses_per_fork = 1024;
  options.accesses_per_unmap = 128;
  options.accesses_per_protect = 128;
  return options;
}

}  // namespace

// What one vCPU runs.
class NestedGuest::Programs {
 public:
  Programs(std::unique_ptr<L1Cpu> cpu, SmpL2Shared& shared, int index,
           uint64_t seed)
      : cpu_(std::move(cpu)),
        smp_(*cpu_, shared, index),
        l2_cpu_(smp_.hypervisor(), shared.options.guests + index),
        index_(index),
        seed_(seed),
        random_(seed) {}

  L1Hypervisor& l1() { return smp_.hypervisor(); }

  absl::Status StartKernel() {
    const absl::StatusOr<GpaSpace> memory =
        GpaSpace::Create({GfnRange::Of(Gfn(0), kKernelPages)});
    absl::StatusOr<std::unique_ptr<KernelProgram>> kernel =
        KernelProgram::Start(l2_cpu_, *memory, KernelFor(seed_));
    if (!kernel.ok()) return kernel.status();
    kernel_ = *std::move(kernel);
    return absl::OkStatus();
  }
  absl::Status Step() {
    return random_() % 8 == 0 ? StepKernel() : smp_.Step();
  }
  absl::Status Verify() {
    if (absl::Status s = smp_.Verify(); !s.ok()) return s;
    return kernel_->Verify();
  }

 private:
  absl::Status StepKernel() {
    const uint64_t dice = random_();
    GuestAccess access;
    access.address_bytes =
        random_() % kernel_->program_pages() * kPageSize +
        (kFirstProgramWord + dice % kProgramWords) * sizeof(uint64_t);
    access.size_bytes = sizeof(uint64_t);
    access.kind = dice / 4 % 2 == 0 ? AccessKind::kWrite : AccessKind::kRead;
    uint64_t word = uint64_t{0x7a5e} << 48 |
                    static_cast<uint64_t>(index_) << 40 | ++last_value_;
    return kernel_->Access(access, &word);
  }

  const std::unique_ptr<L1Cpu> cpu_;
  SmpL2Program smp_;
  L2Cpu l2_cpu_;
  std::unique_ptr<KernelProgram> kernel_;
  const int index_;
  const uint64_t seed_;
  std::mt19937_64 random_;
  uint64_t last_value_ = 0;
};

NestedGuest::NestedGuest(Vm& vm, const GpaSpace& memory, uint64_t seed)
    : GuestThreads(vm),
      seed_(seed),
      shared_(memory, OptionsFor(vm, vcpus(), seed)) {
  Start();
}

bool NestedGuest::AwaitBoot() {
  for (;;) {
    switch (boot_.load()) {
      case Boot::kDone:
        return true;
      case Boot::kFailed:
        return false;
      case Boot::kGoesOn:
        WaitALittle();
    }
  }
}

void NestedGuest::Run(int index) {
  Vcpu& vcpu = VcpuAt(index);
  TlbOptions combined = vm().config().tlb;
  combined.seed += static_cast<uint64_t>(index);
  auto processor = std::make_unique<L1Processor>(
      vcpu, RootLevel(vm().config()), [&] { return AwaitRingRoom(vcpu); },
      MissingMemory::kDevice,
      [&] {
        Outside(vcpu, [this] {
          if (pausing()) return WaitWhilePaused();
          std::this_thread::yield();
        });
      },
      combined);
  const L1Processor& l1_processor = *processor;
  Programs programs(std::make_unique<PatientL1Cpu>(
                        std::move(processor), [&] { StandStillOutside(vcpu); },
                        [&] { WaitOutside(vcpu); }),
                    shared_, index, seed_ * 64 + static_cast<uint64_t>(index));

  absl::Status status;
  if (index == 0) {
    status = programs.l1().Boot();
    boot_.store(status.ok() ? Boot::kDone : Boot::kFailed);
  } else if (!AwaitBoot()) {
    return;
  }
  if (status.ok()) status = programs.StartKernel();
  std::mt19937_64 random(seed_ * 64 + 32 + static_cast<uint64_t>(index));
  while (status.ok() && !stopping()) {
    if (pausing()) WaitWhilePaused();
    vcpu.EnterGuest();
    for (int i = 0; i < kBatch && status.ok(); ++i) status = programs.Step();
    // Others may wait for an invalidation here while this vCPU stands still.
    programs.l1().Rest();
    vcpu.ExitGuest();
    CountAccesses(kBatch);
    if (random() % 1024 == 0) FlushUnasked(vcpu);
    if (random() % 4096 == 0) ReleaseRootUnasked(vcpu);
  }
  if (status.ok()) status = programs.Verify();
  programs.l1().Rest();
  // After a failure the others cannot continue; the first one says why.
  if (!status.ok() && !absl::IsAborted(status)) {
    Report(absl::StrFormat("L1 and its guests on vCPU %d: %s", index,
                           status.ToString()));
  }
  const L1HypervisorStats& stats = programs.l1().stats();
  const std::lock_guard<std::mutex> lock(result_mu_);
  result_.Add({.kept_roots = l1_processor.stats().kept_roots,
               .missed_roots = l1_processor.stats().missed_roots,
               .interrupts = stats.interrupts,
               .invalidations = stats.invalidations,
               .tables_freed = stats.frees + stats.merges});
}

}  // namespace mmu::stress
