#include "tests/stress/moving_kernels.h"

#include <cstddef>
#include <utility>

#include "absl/status/statusor.h"
#include "mmu_core/guest/kernel/guest_kernel_options.h"
#include "tests/stress/paged_guest.h"

namespace mmu::stress {

MovingKernels::MovingKernels(int vcpus, int first_guest, uint64_t seed)
    : first_guest_(first_guest),
      seed_(seed),
      places_(static_cast<size_t>(vcpus)) {
  for (int i = 0; i < vcpus; ++i) At(i).random.seed(SeedOf(i));
}

absl::Status MovingKernels::Start(int vcpu, L1Hypervisor& l1) {
  using LargePages = GuestKernelOptions::LargePages;
  const uint64_t seed = SeedOf(vcpu);
  absl::StatusOr<std::unique_ptr<L2Kernel>> kernel = L2Kernel::Start(
      l1,
      {.guest = first_guest_ + vcpu,
       .seed = seed,
       .large_pages = seed % 2 == 0 ? LargePages::kYes : LargePages::kNo,
       .word = kFirstProgramWord,
       .value = uint64_t{0x7a5e} << 48 | static_cast<uint64_t>(vcpu) << 40});
  if (!kernel.ok()) return kernel.status();
  const std::lock_guard<std::mutex> lock(mu_);
  At(vcpu).l1 = &l1;
  At(vcpu).kernels.push_back(*std::move(kernel));
  return absl::OkStatus();
}

absl::Status MovingKernels::Step(int vcpu) {
  L2Kernel* kernel = nullptr;
  {
    const std::lock_guard<std::mutex> lock(mu_);
    Place& place = At(vcpu);
    if (place.kernels.empty()) return absl::OkStatus();
    kernel = place.kernels[place.random() % place.kernels.size()].get();
  }
  return kernel->Step();
}

void MovingKernels::Send(int vcpu) {
  Place& from = At(vcpu);
  const std::lock_guard<std::mutex> lock(mu_);
  std::vector<std::unique_ptr<L2Kernel>> stay;
  for (std::unique_ptr<L2Kernel>& kernel : from.kernels) {
    Place& to = places_[from.random() % places_.size()];
    if (&to == &from || to.l1 == nullptr) {
      stay.push_back(std::move(kernel));
      continue;
    }
    kernel->MoveTo(*to.l1);
    to.kernels.push_back(std::move(kernel));
  }
  from.kernels = std::move(stay);
}

void MovingKernels::Stay(int vcpu) {
  const std::lock_guard<std::mutex> lock(mu_);
  At(vcpu).l1 = nullptr;
}

absl::Status MovingKernels::Verify(int vcpu) {
  for (const std::unique_ptr<L2Kernel>& kernel : At(vcpu).kernels) {
    if (absl::Status s = kernel->Verify(); !s.ok()) return s;
  }
  return absl::OkStatus();
}

}  // namespace mmu::stress
