#include "tests/stress/moving_kernels.h"

#include <cstddef>
#include <optional>
#include <utility>

#include "absl/status/statusor.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/guest/gpa_space.h"
#include "mmu_core/guest/guest_access.h"
#include "mmu_core/guest/hypervisor/l2_cpu.h"
#include "mmu_core/guest/kernel/kernel_program.h"
#include "tests/stress/paged_guest.h"

namespace mmu::stress {
namespace {

KernelProgramOptions OptionsFor(uint64_t seed,
                                GuestKernelOptions::LargePages large_pages) {
  KernelProgramOptions options;
  options.kernel.large_pages = large_pages;
  options.processes = 2;
  options.pages = 16;
  options.seed = seed;
  options.check = ReadCheck::kYes;
  options.accesses_per_switch = 32;
  options.accesses_per_fork = 64;
  options.accesses_per_unmap = 8;
  options.accesses_per_protect = 8;
  return options;
}

}  // namespace

// Belongs to the thread of the vCPU that it is on.
struct MovingKernels::Kernel {
  Kernel(int number, int guest, uint64_t its_seed)
      : number(number), guest(guest), seed(its_seed), random(its_seed) {}

  absl::Status Start(L1Hypervisor& l1) {
    using LargePages = GuestKernelOptions::LargePages;
    cpu.emplace(l1, guest);
    absl::StatusOr<std::unique_ptr<KernelProgram>> started =
        KernelProgram::Start(*cpu,
                             *GpaSpace::Create({GfnRange::Of(Gfn(0), kPages)}),
                             OptionsFor(seed, seed % 2 == 0 ? LargePages::kYes
                                                            : LargePages::kNo));
    if (!started.ok()) return started.status();
    program = *std::move(started);
    return absl::OkStatus();
  }

  // One word of each page, so that reads find what was written. The values are
  // all different, so a page in the place of another is noticed.
  absl::Status Step() {
    GuestAccess access;
    access.address_bytes = random() % program->program_pages() * kPageSize +
                           kFirstProgramWord * sizeof(uint64_t);
    access.size_bytes = sizeof(uint64_t);
    access.kind = random() % 2 == 0 ? AccessKind::kWrite : AccessKind::kRead;
    uint64_t word = uint64_t{0x7a5e} << 48 |
                    static_cast<uint64_t>(number) << 40 | ++last_value;
    return program->Access(access, &word);
  }

  const int number;
  const int guest;
  const uint64_t seed;
  std::optional<L2Cpu> cpu;
  std::unique_ptr<KernelProgram> program;
  std::mt19937_64 random;
  uint64_t last_value = 0;
};

MovingKernels::MovingKernels(int vcpus, int first_guest, uint64_t seed)
    : places_(static_cast<size_t>(vcpus)) {
  for (int i = 0; i < vcpus; ++i) {
    const uint64_t own = seed * 64 + seed % 2 + static_cast<uint64_t>(i);
    kernels_.push_back(std::make_unique<Kernel>(i, first_guest + i, own));
    At(i).random.seed(own);
  }
}

MovingKernels::~MovingKernels() = default;

absl::Status MovingKernels::Start(int vcpu, L1Hypervisor& l1) {
  Kernel& kernel = *kernels_[static_cast<size_t>(vcpu)];
  if (absl::Status s = kernel.Start(l1); !s.ok()) return s;
  const std::lock_guard<std::mutex> lock(mu_);
  At(vcpu).l1 = &l1;
  At(vcpu).kernels.push_back(&kernel);
  return absl::OkStatus();
}

std::vector<MovingKernels::Kernel*> MovingKernels::On(int vcpu) {
  const std::lock_guard<std::mutex> lock(mu_);
  return At(vcpu).kernels;
}

absl::Status MovingKernels::Step(int vcpu) {
  const std::vector<Kernel*> kernels = On(vcpu);
  if (kernels.empty()) return absl::OkStatus();
  return kernels[At(vcpu).random() % kernels.size()]->Step();
}

void MovingKernels::Send(int vcpu) {
  Place& from = At(vcpu);
  const std::lock_guard<std::mutex> lock(mu_);
  std::erase_if(from.kernels, [&](Kernel* kernel) {
    Place& to = places_[from.random() % places_.size()];
    if (&to == &from || to.l1 == nullptr) return false;
    kernel->cpu->MoveTo(*to.l1);
    to.kernels.push_back(kernel);
    return true;
  });
}

void MovingKernels::Stay(int vcpu) {
  const std::lock_guard<std::mutex> lock(mu_);
  At(vcpu).l1 = nullptr;
}

absl::Status MovingKernels::Verify(int vcpu) {
  for (Kernel* kernel : On(vcpu)) {
    if (absl::Status s = kernel->program->Verify(); !s.ok()) return s;
  }
  return absl::OkStatus();
}

}  // namespace mmu::stress
