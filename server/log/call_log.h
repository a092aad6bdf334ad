// Writes a log line about each call that changed something, was refused or took
// long.

#ifndef SERVER_LOG_CALL_LOG_H_
#define SERVER_LOG_CALL_LOG_H_

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "google/protobuf/message.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/server_interceptor.h"
#include "grpcpp/support/status.h"
#include "server/log/call_facts.h"
#include "server/log/limited_log.h"

namespace mmud {

// The facts about a call at its end. A value.
struct CallEnd {
  enum class Kind : uint8_t {
    kShort,
    kPatient,  // lasts as long as its caller wants: a stream, a wait
  };

  std::string method;  // as gRPC has it: "/mmud.v1.VmService/CreateVm"
  Kind kind = Kind::kShort;
  std::string peer;  // in gRPC's form: "fd:7", "ipv4:127.0.0.1:4711"
  grpc::Status status;
  absl::Duration duration;
};

// Writes at most one line for each call, when its status is sent:
//
//   changed something, or may have (OK, or given up on the way)    info
//   failed after a part of its work was done                       info
//   error of the daemon or of data (INTERNAL, UNKNOWN, DATA_LOSS)  warning
//   refused: nothing was changed                                   debug
//   read something, in a second or more                            info
//
// The line has method, VM, operation, request_id, outcome, duration and caller.
// Floods of lines are cut. A repeated request that was answered from memory has
// a line of its own, with the same request_id. Thread-safe.
class CallLog {
 public:
  // `log` outlives this.
  explicit CallLog(LimitedLog& log) : log_(log) {}

  // Notes the facts of the call's request and of its response, before its
  // status is sent. `call` serves only to identify the call.
  void NoteRequest(const grpc::ServerContextBase* call,
                   const google::protobuf::Message& request);
  void NoteResponse(const grpc::ServerContextBase* call,
                    const google::protobuf::Message& response);
  // Notes that a part of the work is done, and stays done if the call fails
  // from now on.
  void NotePartDone(const grpc::ServerContextBase* call);
  // Writes the line of a call that ends. REQUIRES: DescribePeer may be called
  // with end.peer.
  void End(const grpc::ServerContextBase* call, const CallEnd& end);
  // Drops the notes of a call that is gone, possibly without a status.
  void Forget(const grpc::ServerContextBase* call);

 private:
  struct Noted {
    CallFacts facts;
    bool part_done = false;
  };

  Noted Take(const grpc::ServerContextBase* call);

  LimitedLog& log_;
  absl::Mutex mu_;
  std::unordered_map<const grpc::ServerContextBase*, Noted> calls_
      ABSL_GUARDED_BY(mu_);
};

// Puts an interceptor around every call that reports the call's end to `log`,
// which outlives the server.
std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>
MakeCallLogFactory(CallLog& log);

}  // namespace mmud

#endif  // SERVER_LOG_CALL_LOG_H_
