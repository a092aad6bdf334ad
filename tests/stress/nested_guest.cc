#include "tests/stress/nested_guest.h"

#include <memory>
#include <random>
#include <thread>
#include <utility>

#include "absl/strings/str_format.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest/hypervisor/l1_hypervisor.h"
#include "mmu_core/guest/hypervisor/l2_kernel.h"
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
  options.other_pages = L2Kernel::kPages;
  options.first_word = kFirstProgramWord;
  options.seed = seed;
  // Merging needs 2 MiB of L1's memory for each page.
  options.steps_per_promote = 0;
  return options;
}

}  // namespace

NestedGuest::NestedGuest(Vm& vm, const GpaSpace& memory,
                         const RoundConfig& config)
    : GuestThreads(vm),
      seed_(config.seed),
      invvpids_(config.skip_invvpid ? PatientL1Cpu::Invvpids::kSkip
                                    : PatientL1Cpu::Invvpids::kPerform),
      shared_(memory, OptionsFor(vm, vcpus(), seed_)),
      kernels_(vcpus(), shared_.options.guests, seed_) {
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
  PatientL1Cpu cpu(
      std::move(processor), [&] { StandStillOutside(vcpu); },
      [&] { WaitOutside(vcpu); }, invvpids_);
  SmpL2Program program(cpu, shared_, index);
  L1Hypervisor& l1 = program.hypervisor();

  absl::Status status;
  if (index == 0) {
    status = l1.Boot();
    boot_.store(status.ok() ? Boot::kDone : Boot::kFailed);
  } else if (!AwaitBoot()) {
    return;
  }
  if (status.ok()) status = kernels_.Start(index, l1);
  std::mt19937_64 random(seed_ * 64 + 32 + static_cast<uint64_t>(index));
  while (status.ok() && !stopping()) {
    if (pausing()) WaitWhilePaused();
    vcpu.EnterGuest();
    for (int i = 0; i < kBatch && status.ok(); ++i) {
      status = random() % 2 == 0 ? kernels_.Step(index) : program.Step();
    }
    kernels_.Send(index);
    // Others may wait for an invalidation here while this vCPU stands still.
    l1.Rest();
    vcpu.ExitGuest();
    CountAccesses(kBatch);
    if (random() % 1024 == 0) FlushUnasked(vcpu);
    if (random() % 4096 == 0) ReleaseRootUnasked(vcpu);
  }
  kernels_.Stay(index);
  if (status.ok()) status = program.Verify();
  if (status.ok()) status = kernels_.Verify(index);
  l1.Rest();
  // After a failure the others cannot continue; the first one says why.
  if (!status.ok() && !absl::IsAborted(status)) {
    Report(absl::StrFormat("L1 and its guests on vCPU %d: %s", index,
                           status.ToString()));
  }
  const L1HypervisorStats& stats = l1.stats();
  const std::lock_guard<std::mutex> lock(result_mu_);
  result_.Add({.kept_roots = l1_processor.stats().kept_roots,
               .missed_roots = l1_processor.stats().missed_roots,
               .interrupts = stats.interrupts,
               .invalidations = stats.invalidations,
               .arrivals = stats.arrivals,
               .tables_freed = stats.frees + stats.merges});
}

}  // namespace mmu::stress
