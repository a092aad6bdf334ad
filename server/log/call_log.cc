#include "server/log/call_log.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "google/protobuf/message.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/support/interceptor.h"
#include "grpcpp/support/server_interceptor.h"
#include "grpcpp/support/status.h"
#include "mmu_core/sync/spin.h"
#include "server/base/status_codes.h"
#include "server/log/call_facts.h"
#include "server/log/logging.h"
#include "server/log/peer.h"

namespace mmud {
namespace {

constexpr absl::Duration kSlow = absl::Seconds(1);
constexpr char kWaitOperation[] =
    "/google.longrunning.Operations/WaitOperation";

// How a call ended, and from that the text and the level of its line.
struct Verdict {
  bool worth_a_line = false;
  LogLevel level = LogLevel::kDebug;
  const char* message = "";
};

Verdict Judge(const CallFacts& facts, bool part_done, const CallEnd& end) {
  switch (end.status.error_code()) {
    case grpc::StatusCode::OK:
      if (facts.changes_state) return {true, LogLevel::kInfo, "call"};
      return {end.kind == CallEnd::Kind::kShort && end.duration >= kSlow,
              LogLevel::kInfo, "slow call"};
    case grpc::StatusCode::INTERNAL:
    case grpc::StatusCode::UNKNOWN:
    case grpc::StatusCode::DATA_LOSS:
      return {true, LogLevel::kWarning, "call failed"};
    case grpc::StatusCode::CANCELLED:
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      // A part of the work may be done.
      return {true, facts.changes_state ? LogLevel::kInfo : LogLevel::kDebug,
              "call given up"};
    default:
      if (part_done) return {true, LogLevel::kInfo, "call broken off"};
      return {true, LogLevel::kDebug, "call refused"};
  }
}

void AddIfSaid(const char* key, const std::string& value, LogFields* fields) {
  if (!value.empty()) fields->emplace_back(key, value);
}

// The status's message is left out: it quotes values that the caller sent.
void AddOutcome(const grpc::Status& status, LogFields* fields) {
  fields->emplace_back("code",
                       StatusCodeName(static_cast<int>(status.error_code())));
  google::rpc::Status rich;
  if (!rich.ParseFromString(status.error_details())) return;
  for (const auto& detail : rich.details()) {
    google::rpc::ErrorInfo info;
    if (!detail.UnpackTo(&info)) continue;
    AddIfSaid("reason", info.reason(), fields);
    const auto field = info.metadata().find("field");
    if (field != info.metadata().end()) {
      AddIfSaid("field", field->second, fields);
    }
    return;
  }
}

// The caller without its port, the same for all of its connections.
std::string CallerOf(const LogFields& peer) {
  if (peer.size() > 1) return absl::StrCat(peer[0].second, " ", peer[1].second);
  const std::string& address = peer[0].second;
  return address.substr(0, address.rfind(':'));
}

class CallLogInterceptor final : public grpc::experimental::Interceptor {
 public:
  CallLogInterceptor(CallLog& log, grpc::experimental::ServerRpcInfo& info)
      : log_(log), info_(info), begin_(mmu::MonotonicNanos()) {}
  ~CallLogInterceptor() override { log_.Forget(info_.server_context()); }

  void Intercept(grpc::experimental::InterceptorBatchMethods* call) override {
    if (call->QueryInterceptionHookPoint(
            grpc::experimental::InterceptionHookPoints::PRE_SEND_STATUS)) {
      CallEnd end;
      end.method = info_.method();
      const bool unary =
          info_.type() == grpc::experimental::ServerRpcInfo::Type::UNARY;
      end.kind = unary && end.method != kWaitOperation
                     ? CallEnd::Kind::kShort
                     : CallEnd::Kind::kPatient;
      end.peer = info_.server_context()->peer();
      end.status = call->GetSendStatus();
      end.duration = absl::Nanoseconds(mmu::MonotonicNanos() - begin_);
      log_.End(info_.server_context(), end);
    }
    call->Proceed();
  }

 private:
  CallLog& log_;
  grpc::experimental::ServerRpcInfo& info_;  // owns this
  const int64_t begin_;
};

class CallLogFactory final
    : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  explicit CallLogFactory(CallLog& log) : log_(log) {}

  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo* info) override {
    return new CallLogInterceptor(log_, *info);
  }

 private:
  CallLog& log_;
};

}  // namespace

void CallLog::NoteRequest(const grpc::ServerContextBase* call,
                          const google::protobuf::Message& request) {
  CallFacts facts = FactsOf(request);
  absl::MutexLock lock(&mu_);
  calls_[call] = {.facts = std::move(facts)};
}

void CallLog::NotePartDone(const grpc::ServerContextBase* call) {
  absl::MutexLock lock(&mu_);
  calls_[call].part_done = true;
}

void CallLog::NoteResponse(const grpc::ServerContextBase* call,
                           const google::protobuf::Message& response) {
  CallFacts facts = FactsOf(response);
  if (facts.operation.empty()) return;
  absl::MutexLock lock(&mu_);
  calls_[call].facts.operation = std::move(facts.operation);
}

CallLog::Noted CallLog::Take(const grpc::ServerContextBase* call) {
  absl::MutexLock lock(&mu_);
  const auto it = calls_.find(call);
  if (it == calls_.end()) return {};
  Noted noted = std::move(it->second);
  calls_.erase(it);
  return noted;
}

void CallLog::Forget(const grpc::ServerContextBase* call) {
  absl::MutexLock lock(&mu_);
  calls_.erase(call);
}

void CallLog::End(const grpc::ServerContextBase* call, const CallEnd& end) {
  const Noted noted = Take(call);
  const CallFacts& facts = noted.facts;
  log_.SayDropped();
  const Verdict verdict = Judge(facts, noted.part_done, end);
  if (!verdict.worth_a_line || !LogsLevel(verdict.level)) return;
  const LogFields peer = DescribePeer(end.peer);
  LogFields fields = {
      {"method", std::string(absl::StripPrefix(end.method, "/"))}};
  AddIfSaid("vm", facts.vm, &fields);
  AddIfSaid("operation", facts.operation, &fields);
  AddIfSaid("request_id", facts.request_id, &fields);
  AddOutcome(end.status, &fields);
  fields.emplace_back("duration", absl::FormatDuration(end.duration));
  fields.insert(fields.end(), peer.begin(), peer.end());
  log_.Write(absl::StrCat(CallerOf(peer), " ", end.method, " ",
                          LogLevelName(verdict.level)),
             verdict.level, verdict.message, fields);
}

std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>
MakeCallLogFactory(CallLog& log) {
  return std::make_unique<CallLogFactory>(log);
}

}  // namespace mmud
