#include "client/comparison/daemon_check.h"

#include <cstdint>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "client/text/units.h"
#include "mmud/v1/vm_service.pb.h"

namespace mmud::client {
namespace {

absl::Status CheckLimits(Client& client, const Plan& plan) {
  const auto limits = client.vms().GetCapabilities({});
  if (!limits.ok()) return limits.status();
  for (const int32_t count : plan.options.vcpu_counts) {
    if (count > limits->max_vcpus_per_vm_count()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--vcpus is ", count, ": a VM of this daemon has at most ",
          limits->max_vcpus_per_vm_count(), " vCPUs; give at most ",
          limits->max_vcpus_per_vm_count()));
    }
  }
  for (const v1::LimitUse& limit : limits->limits()) {
    const int64_t left = limit.limit_count() - limit.used_count();
    if (limit.name() == "max_guest_memory_bytes" && limit.limit_count() != 0 &&
        plan.options.memory_bytes > left) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "--memory is ", FormatBytes(plan.options.memory_bytes),
          ": the daemon has ", FormatBytes(left),
          " of guest memory left (max_guest_memory_bytes); give less, or "
          "delete a VM"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckNames(Client& client, const Plan& plan) {
  std::set<std::string> names;
  for (const Combination& combination : plan.combinations) {
    names.insert(absl::StrCat("vms/", combination.vm_id));
  }
  const auto all = client.vms().ListAllVms(v1::ListVmsRequest());
  if (!all.ok()) return all.status();
  for (const v1::Vm& vm : all->vms()) {
    if (names.count(vm.name()) == 0) continue;
    return absl::AlreadyExistsError(absl::StrCat(
        "--name is ", plan.options.name, ": ", vm.name(),
        " exists, and each VM of a comparison has a name of its own; delete "
        "the VM (mmuctl vm delete), or give another --name"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckDaemon(Client& client, const Plan& plan) {
  if (absl::Status s = CheckLimits(client, plan); !s.ok()) return s;
  return CheckNames(client, plan);
}

}  // namespace mmud::client
