// All functions in one piece: libtorch's headers take longer to read than all of them take to compile.

#include "adamw.cpp"
#include "group_norm.cpp"
#include "nearest.cpp"
#include "rows.cpp"
