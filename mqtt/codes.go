package mqtt

// Code is a Reason Code of MQTT 5 (section 2.4). Below 0x80 it is a success.
type Code byte

// The Reason Codes this server uses, by their names in the specification.
const (
	Success                        Code = 0x00
	DisconnectWithWill             Code = 0x04
	NoMatchingSubscribers          Code = 0x10
	NoSubscriptionExisted          Code = 0x11
	ContinueAuthentication         Code = 0x18
	ReAuthenticate                 Code = 0x19
	UnspecifiedError               Code = 0x80
	MalformedPacket                Code = 0x81
	ProtocolError                  Code = 0x82
	ImplementationSpecificError    Code = 0x83
	UnsupportedProtocolVersion     Code = 0x84
	ClientIdentifierNotValid       Code = 0x85
	BadUserNameOrPassword          Code = 0x86
	NotAuthorized                  Code = 0x87
	ServerUnavailable              Code = 0x88
	ServerBusy                     Code = 0x89
	Banned                         Code = 0x8A
	ServerShuttingDown             Code = 0x8B
	BadAuthenticationMethod        Code = 0x8C
	KeepAliveTimeout               Code = 0x8D
	SessionTakenOver               Code = 0x8E
	TopicFilterInvalid             Code = 0x8F
	TopicNameInvalid               Code = 0x90
	PacketIdentifierNotFound       Code = 0x92
	ReceiveMaximumExceeded         Code = 0x93
	TopicAliasInvalid              Code = 0x94
	PacketTooLarge                 Code = 0x95
	QuotaExceeded                  Code = 0x97
	PayloadFormatInvalid           Code = 0x99
	RetainNotSupported             Code = 0x9A
	SharedSubscriptionsUnsupported Code = 0x9E
	SubscriptionIDsUnsupported     Code = 0xA1
	WildcardsUnsupported           Code = 0xA2
)

var codeNames = map[Code]string{
	Success:                        "normal disconnection",
	DisconnectWithWill:             "disconnect with will",
	NoMatchingSubscribers:          "no matching subscribers",
	NoSubscriptionExisted:          "no subscription existed",
	ContinueAuthentication:         "continue authentication",
	ReAuthenticate:                 "re-authenticate",
	UnspecifiedError:               "unspecified error",
	MalformedPacket:                "malformed packet",
	ProtocolError:                  "protocol error",
	ImplementationSpecificError:    "implementation specific error",
	UnsupportedProtocolVersion:     "unsupported protocol version",
	ClientIdentifierNotValid:       "client identifier not valid",
	BadUserNameOrPassword:          "bad user name or password",
	NotAuthorized:                  "not authorized",
	ServerUnavailable:              "server unavailable",
	ServerBusy:                     "server busy",
	Banned:                         "banned",
	ServerShuttingDown:             "server shutting down",
	BadAuthenticationMethod:        "bad authentication method",
	KeepAliveTimeout:               "keep alive timeout",
	SessionTakenOver:               "session taken over",
	TopicFilterInvalid:             "topic filter invalid",
	TopicNameInvalid:               "topic name invalid",
	PacketIdentifierNotFound:       "packet identifier not found",
	ReceiveMaximumExceeded:         "receive maximum exceeded",
	TopicAliasInvalid:              "topic alias invalid",
	PacketTooLarge:                 "packet too large",
	QuotaExceeded:                  "quota exceeded",
	PayloadFormatInvalid:           "payload format invalid",
	RetainNotSupported:             "retain not supported",
	SharedSubscriptionsUnsupported: "shared subscriptions not supported",
	SubscriptionIDsUnsupported:     "subscription identifiers not supported",
	WildcardsUnsupported:           "wildcard subscriptions not supported",
}

// String gives the specification's name of the code, in lower case.
func (c Code) String() string {
	if s, ok := codeNames[c]; ok {
		return s
	}
	return "unknown reason code"
}
