// c10d's FakeProcessGroup.hpp includes this header of libtorch's, which wants Python's and of which it uses nothing.
#pragma once
