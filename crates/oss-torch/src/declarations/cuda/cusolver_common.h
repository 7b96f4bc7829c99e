// libtorch headers that ProcessGroupNCCL.hpp includes name these types of this library but call none of its functions.
// The library's own headers come with hundreds of megabytes that nothing else here needs.
#pragma once
typedef enum { CUSOLVER_STATUS_SUCCESS = 0 } cusolverStatus_t;
