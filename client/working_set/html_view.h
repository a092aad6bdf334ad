// A picture of a working set as one HTML page.

#ifndef CLIENT_WORKING_SET_HTML_VIEW_H_
#define CLIENT_WORKING_SET_HTML_VIEW_H_

#include <string>

#include "client/working_set/picture.h"

namespace mmud::client {

// A whole page that needs no other file and no network: the working set of each
// window, the histogram of ages, the heat map of guest memory, and the
// timeline, each with its numbers as a table. It has colours for light and for
// dark screens, and all that it says can be read without its script. It is
// well-formed XML too.
std::string ViewWorkingSetAsHtml(const WorkingSetPicture& picture);

}  // namespace mmud::client

#endif  // CLIENT_WORKING_SET_HTML_VIEW_H_
