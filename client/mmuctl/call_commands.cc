// mmuctl call: any method of the daemon, by its name.

#include <istream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "client/mmu_client/client.h"
#include "client/mmuctl/arguments.h"
#include "client/mmuctl/commands.h"
#include "client/mmuctl/context.h"
#include "client/text/error_text.h"
#include "client/text/message_json.h"
#include "client/text/table.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "google/protobuf/util/json_util.h"
#include "nlohmann/json.hpp"

namespace mmud::client {
namespace {

using google::protobuf::Message;
using google::protobuf::MethodDescriptor;
using google::protobuf::ServiceDescriptor;

struct CallArguments {
  std::string method;
  std::string json;
  bool list = false;
  bool describe = false;
};

// "stream GetDirtyLogResponse" with the full name of the message.
std::string TypeText(const google::protobuf::Descriptor& type, bool streams) {
  return absl::StrCat(streams ? "stream " : "", type.full_name());
}

absl::Status List(Context& context, Client& client, const std::string& only) {
  std::vector<std::string> services = {only};
  if (only.empty()) {
    absl::StatusOr<std::vector<std::string>> all =
        client.dynamic().ListServices();
    if (!all.ok()) return all.status();
    services = *std::move(all);
  }
  Table table({{"METHOD"}, {"REQUEST"}, {"RESPONSE"}});
  Json json = Json::array();
  for (const std::string& name : services) {
    const auto service = client.dynamic().FindService(name);
    if (!service.ok()) {
      // A daemon of another version may serve a service without a description
      // of it.
      if (!only.empty() || !absl::IsNotFound(service.status())) {
        return service.status();
      }
      table.AddRow({name, "not described", "not described"});
      json.push_back({{"name", name}, {"methods", Json::array()}});
      continue;
    }
    Json methods = Json::array();
    for (int i = 0; i < (*service)->method_count(); ++i) {
      const MethodDescriptor& method = *(*service)->method(i);
      table.AddRow(
          {absl::StrCat((*service)->full_name(), "/", method.name()),
           TypeText(*method.input_type(), method.client_streaming()),
           TypeText(*method.output_type(), method.server_streaming())});
      methods.push_back({{"name", method.name()},
                         {"request_type", method.input_type()->full_name()},
                         {"response_type", method.output_type()->full_name()},
                         {"client_streaming", method.client_streaming()},
                         {"server_streaming", method.server_streaming()}});
    }
    json.push_back(
        {{"name", (*service)->full_name()}, {"methods", std::move(methods)}});
  }
  return context.Print(Json{{"services", std::move(json)}}, table.ToString());
}

// Reads the next JSON object of `in` as a request. Returns false at the end of
// `in`.
absl::StatusOr<bool> ReadRequest(std::istream& in, Message* request) {
  if ((in >> std::ws).eof()) return false;
  Json json;
  try {
    in >> json;
  } catch (const Json::parse_error& error) {
    return UsageError(absl::StrCat("the request is not JSON: ", error.what()));
  }
  google::protobuf::util::JsonParseOptions options;
  const auto status = google::protobuf::util::JsonStringToMessage(
      json.dump(), request, options);
  if (!status.ok()) {
    return UsageError(absl::StrCat(
        "the request is not a ", request->GetDescriptor()->full_name(), ": ",
        std::string(status.message()), "; see mmuctl call --describe ",
        request->GetDescriptor()->full_name()));
  }
  return true;
}

absl::Status Call(Context& context, const CallArguments& arguments) {
  if (arguments.method.empty() && !arguments.list) {
    return UsageError("give SERVICE/METHOD; --list lists the methods");
  }
  const absl::StatusOr<Client*> client = context.client();
  if (!client.ok()) return client.status();
  if (arguments.list) return List(context, **client, arguments.method);
  if (arguments.describe) {
    const auto text = (*client)->dynamic().Describe(arguments.method);
    if (!text.ok()) return text.status();
    return context.Print(
        Json{{"name", arguments.method}, {"declaration", *text}}, *text);
  }
  const auto method = (*client)->dynamic().FindMethod(arguments.method);
  if (!method.ok()) return method.status();
  std::istringstream text(arguments.json.empty() ? "{}" : arguments.json);
  std::istream& in = arguments.json == "-" ? context.in() : text;
  int requests = 0;
  return (*client)->dynamic().Call(
      **method,
      [&](Message* request) -> absl::StatusOr<bool> {
        const absl::StatusOr<bool> more = ReadRequest(in, request);
        if (more.ok() && *more) ++requests;
        if (!more.ok() || (*method)->client_streaming()) return more;
        if (!*more) {
          return UsageError(absl::StrCat((*method)->full_name(),
                                         " takes one request; there is none"));
        }
        if (!(in >> std::ws).eof()) {
          return UsageError(absl::StrCat((*method)->full_name(),
                                         " takes one request; there are more"));
        }
        return true;
      },
      [&](const Message& response) {
        const absl::StatusOr<Json> json = MessageToJson(response);
        if (!json.ok()) return json.status();
        context.out() << JsonText(*json) << std::flush;
        return absl::OkStatus();
      });
}

}  // namespace

void AddCallCommands(CLI::App& app, Context& context) {
  auto arguments = std::make_shared<CallArguments>();
  CLI::App* command = AddCommand(
      app, "call",
      "Calls any method of the daemon by its name. Requests and responses are "
      "JSON; the daemon describes their types (server reflection).\n"
      "A method that streams responses prints one object for each. A method "
      "that streams requests takes a sequence of objects.",
      "mmuctl call VmService/GetVm '{\"name\": \"vms/alpha\"}'\n"
      "echo '{\"vm\": \"vms/alpha\"}' | mmuctl call StatsService/GetMmuStats "
      "-\n"
      "mmuctl call --list SplitService\n"
      "mmuctl call --describe mmud.v1.Throttle");
  command
      ->add_option("METHOD", arguments->method,
                   "SERVICE/METHOD, as mmud.v1.VmService/GetVm or shorter; "
                   "with --list a service, with --describe any name")
      ->type_name("NAME");
  command
      ->add_option("JSON", arguments->json,
                   "the request; -: from standard input (default: {})")
      ->type_name("TEXT");
  CLI::Option* list = command->add_flag(
      "--list", arguments->list, "list the methods, of one service or of all");
  command
      ->add_flag("--describe", arguments->describe,
                 "show the declaration of a service, method, message or enum")
      ->excludes(list);
  Run(command, context, arguments, Call);
}

}  // namespace mmud::client
