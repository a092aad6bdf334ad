#include "server/convert/dirty_rate_convert.h"

#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/reason.h"
#include "server/base/errors.h"
#include "server/convert/convert.h"

namespace mmud {
namespace {

constexpr int kMaxWindows = 16;

}  // namespace

absl::StatusOr<std::vector<absl::Duration>> ToWindows(
    const google::protobuf::RepeatedPtrField<google::protobuf::Duration>&
        windows) {
  if (windows.size() > kMaxWindows) {
    return InvalidField(mmu::Reason::kInvalidWindow, "windows",
                        absl::StrCat("windows has ", windows.size(),
                                     " entries; it may have ", kMaxWindows));
  }
  std::vector<absl::Duration> durations;
  for (int i = 0; i < windows.size(); ++i) {
    absl::Duration window;
    if (!FromProto(windows[i], &window) || window < absl::Milliseconds(100) ||
        window > DirtyRateHistory::kLongest) {
      return WrongValue(mmu::Reason::kInvalidWindow,
                        absl::StrCat("windows[", i, "]"), Show(windows[i]),
                        "from 100 ms to 10 min");
    }
    durations.push_back(window);
  }
  return durations;
}

v1::DirtyRate ToProto(absl::Duration window, const DirtyRateResult& rate,
                      VcpuRates vcpus) {
  v1::DirtyRate proto;
  *proto.mutable_window() = ToProto(window);
  *proto.mutable_observed() = ToProto(rate.observed);
  proto.set_unique_pages_per_second(rate.vm.pages_per_second);
  proto.set_write_faults_per_second(rate.vm.write_faults_per_second);
  proto.set_bytes_per_second(rate.vm.pages_per_second * mmu::kPageSize);
  proto.set_ring_full_ratio(rate.vm.ring_full_ratio);
  if (vcpus == VcpuRates::kLeaveOut) return proto;
  for (const DirtyRates& rates : rate.vcpus) {
    v1::VcpuDirtyRate* vcpu = proto.add_vcpus();
    vcpu->set_vcpu(proto.vcpus_size() - 1);
    vcpu->set_unique_pages_per_second(rates.pages_per_second);
    vcpu->set_write_faults_per_second(rates.write_faults_per_second);
    vcpu->set_ring_full_ratio(rates.ring_full_ratio);
  }
  return proto;
}

}  // namespace mmud
