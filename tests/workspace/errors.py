"""How a workspace says no: an HTTP status, an error code, a message."""


class Refused(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.body = status, {"error_code": code, "message": message}


def invalid(message: str) -> Refused:
    return Refused(400, "INVALID_PARAMETER_VALUE", message)


def missing(message: str) -> Refused:
    return Refused(404, "RESOURCE_DOES_NOT_EXIST", message)


def denied(message: str) -> Refused:
    return Refused(403, "PERMISSION_DENIED", message)


def exists(message: str) -> Refused:
    return Refused(409, "RESOURCE_ALREADY_EXISTS", message)
