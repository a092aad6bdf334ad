// The newest sample with its rates as JSON: the schema "mmud.top/1", which
// docs/mmuctl.md describes.

#ifndef CLIENT_TOP_JSON_VIEW_H_
#define CLIENT_TOP_JSON_VIEW_H_

#include "client/text/message_json.h"
#include "client/top/columns.h"
#include "client/top/model.h"

namespace mmud::client {

// The VMs in the given order. REQUIRES: the model has a sample.
Json TopJson(const TopModel& model, SortKey sort);

}  // namespace mmud::client

#endif  // CLIENT_TOP_JSON_VIEW_H_
