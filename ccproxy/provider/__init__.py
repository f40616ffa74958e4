"""The provider side: dialects, one HTTP attempt, the walk along a route."""
