// Collects all metrics of /metrics, at each scrape, by reading memory.

#ifndef SERVER_DAEMON_COLLECTOR_H_
#define SERVER_DAEMON_COLLECTOR_H_

#include <vector>

#include "prometheus/collectable.h"
#include "prometheus/metric_family.h"
#include "server/metrics/mmu_metrics_writer.h"
#include "server/metrics/rpc_metrics.h"
#include "server/services/daemon_state.h"

namespace mmud {

// Thread-safe.
class DaemonCollector final : public prometheus::Collectable {
 public:
  // `state` and `rpcs` must outlive this object.
  DaemonCollector(DaemonState& state, const RpcMetrics& rpcs)
      : state_(state), rpcs_(rpcs) {}

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  MmuTotals GatherMmu() const;

  DaemonState& state_;
  const RpcMetrics& rpcs_;
};

}  // namespace mmud

#endif  // SERVER_DAEMON_COLLECTOR_H_
