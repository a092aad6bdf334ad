#include "client/quickstart/order_comparison.h"

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/migration_report.h"
#include "client/mmu_client/page_bitmap.h"
#include "mmud/v1/common.pb.h"

namespace mmud::client {
namespace {

OrderOutcome OutcomeOf(const OrderWorkload& workload,
                       const MigrationReport& report) {
  OrderOutcome outcome;
  outcome.workload = workload.name;
  outcome.order = report.order;
  outcome.sent_page_count = report.sent_page_count;
  outcome.resent_page_count = report.resent_page_count;
  outcome.sent_bytes = SentBytes(report);
  outcome.migration_time = report.migration_time;
  outcome.downtime = report.estimated_downtime;
  outcome.round_count = static_cast<int64_t>(report.rounds.size());
  outcome.converged = report.converged;
  outcome.equal = report.equal;
  return outcome;
}

}  // namespace

ControllerOptions ShortMigration(ControllerOptions options,
                                 int64_t memory_bytes) {
  options.memslots.assign(1, {});
  options.memslots[0].set_size_bytes(memory_bytes);
  options.memslots[0].set_host_page_size(v1::PAGE_SIZE_2M);
  options.populate_stride_bytes = kPageBytes;
  options.split_throttle.Clear();
  options.min_rounds = 1;
  options.max_rounds = 6;
  return options;
}

absl::StatusOr<std::vector<OrderOutcome>> CompareOrders(
    Client* client, const ControllerOptions& options,
    const OrderWorkload& workload, const std::vector<SendOrder>& orders,
    ControllerObserver* observer) {
  std::vector<OrderOutcome> outcomes;
  for (const SendOrder order : orders) {
    ControllerOptions with_order = options;
    with_order.order = order;
    with_order.program = workload.program;
    with_order.trace_name = workload.name;
    with_order.accesses_per_second_per_vcpu =
        workload.accesses_per_second_per_vcpu;
    ReferenceController controller(client, std::move(with_order), observer);
    const absl::StatusOr<MigrationReport> report = controller.Run();
    const absl::Status deleted = controller.Delete();
    if (!report.ok()) return report.status();
    if (!deleted.ok()) return deleted;
    outcomes.push_back(OutcomeOf(workload, *report));
  }
  return outcomes;
}

}  // namespace mmud::client
