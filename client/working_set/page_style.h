// How the page of a working set looks and what it does under a pointer.

#ifndef CLIENT_WORKING_SET_PAGE_STYLE_H_
#define CLIENT_WORKING_SET_PAGE_STYLE_H_

#include <string>

namespace mmud::client {

// The style sheet, for light and for dark screens, with a colour for each of
// `heat_steps` steps as class heat-0 and so on.
std::string PageStyle(int heat_steps);

// A script that shows the <title> of what is under the pointer, in the heat map
// with the address of the cell. Without it a browser shows these titles after a
// while. It has no character that XML reserves.
std::string PageScript();

}  // namespace mmud::client

#endif  // CLIENT_WORKING_SET_PAGE_STYLE_H_
