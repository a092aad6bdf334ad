// Migrates the same guest with one order of sending after the other.

#ifndef CLIENT_QUICKSTART_ORDER_COMPARISON_H_
#define CLIENT_QUICKSTART_ORDER_COMPARISON_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "client/mmu_client/client.h"
#include "client/order_outcome.h"
#include "client/quickstart/order_workloads.h"
#include "client/reference_controller.h"
#include "client/send_order.h"

namespace mmud::client {

// Options of a short migration of `memory_bytes` on 2M pages with content in
// every page, so that every page takes its time on the link. The VM's MMU, its
// name, the link and the downtime are as in `options`.
ControllerOptions ShortMigration(ControllerOptions options,
                                 int64_t memory_bytes);

// Migrates a guest that runs `workload` once with each order, and deletes it.
// All runs have the same seed.
absl::StatusOr<std::vector<OrderOutcome>> CompareOrders(
    Client* client, const ControllerOptions& options,
    const OrderWorkload& workload, const std::vector<SendOrder>& orders,
    ControllerObserver* observer);

}  // namespace mmud::client

#endif  // CLIENT_QUICKSTART_ORDER_COMPARISON_H_
