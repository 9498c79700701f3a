{{- define "millrace.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "millrace.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "millrace.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "millrace.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What pods are chosen by; never changes. Called with a list of root and component, and a group of workers where there is one. */}}
{{- define "millrace.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "millrace.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- if gt (len .) 2 }}
millrace/group: {{ index . 2 }}
{{- end }}
{{- end -}}

{{- define "millrace.labels" -}}
{{- $root := index . 0 -}}
{{ include "millrace.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- end -}}

{{- define "millrace.image" -}}
{{- $root := index . 0 -}}
{{- with $root.Values.image -}}
{{- if .registry }}{{ trimSuffix "/" .registry }}/{{ end }}{{ index $root.Values.image (index $ 1) }}:{{ .tag | default $root.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "millrace.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "millrace.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "millrace.secretName" -}}
{{- default (include "millrace.fullname" .) .Values.secrets.existingSecret -}}
{{- end -}}

{{- define "millrace.redisSecret" -}}
name: {{ default (include "millrace.fullname" .) .Values.redis.existingSecret }}
key: {{ ternary .Values.redis.existingSecretKey "REDIS_URL" (ne .Values.redis.existingSecret "") }}
{{- end -}}

{{/*
Secrets as environment, or where they are files the names of those. Called with root and the names beside REDIS_URL:
keys that the process can do without, for it says itself what it lacks.
*/}}
{{- define "millrace.secretEnv" -}}
{{- $root := index . 0 -}}
{{- range prepend (include "millrace.secretKeys" . | fromJsonArray) "REDIS_URL" }}
{{- if $root.Values.secrets.asFiles }}
- { name: {{ . }}_FILE, value: /run/secrets/millrace/{{ . }} }
{{- else if eq . "REDIS_URL" }}
- name: REDIS_URL
  valueFrom:
    secretKeyRef:
      {{- include "millrace.redisSecret" $root | nindent 6 }}
{{- else }}
- name: {{ . }}
  valueFrom:
    secretKeyRef: { name: {{ include "millrace.secretName" $root }}, key: {{ . }}, optional: true }
{{- end }}
{{- end }}
{{- end -}}

{{/* The named keys of the secret, as JSON; of files, which have to be there, those that are wanted. */}}
{{- define "millrace.secretKeys" -}}
{{- $values := (index . 0).Values -}}
{{- $unsigned := or (not $values.webhooks.enabled) (not (or $values.secrets.existingSecret $values.secrets.webhookSecret)) -}}
{{- $keys := index . 1 -}}
{{- if and $values.secrets.asFiles $unsigned }}{{ $keys = without $keys "WEBHOOK_SECRET" }}{{ end -}}
{{- $keys | toJson -}}
{{- end -}}

{{/* The volume of secrets that are files. Called like millrace.secretEnv. */}}
{{- define "millrace.secretVolume" -}}
{{- $root := index . 0 -}}
{{- $redis := include "millrace.redisSecret" $root | fromYaml -}}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      - secret: { name: {{ $redis.name }}, items: [{ key: {{ $redis.key }}, path: REDIS_URL }] }
      {{- range include "millrace.secretKeys" . | fromJsonArray }}
      - secret: { name: {{ include "millrace.secretName" $root }}, items: [{ key: {{ . }}, path: {{ . }} }], optional: true }
      {{- end }}
{{- end -}}

{{/* A value as text: a number in full, neither cut to an integer nor with an exponent. */}}
{{- define "millrace.text" -}}
{{- if kindIs "float64" . -}}
{{- regexReplaceAll "\\.?0+$" (printf "%.9f" .) "" -}}
{{- else -}}
{{- toString . -}}
{{- end -}}
{{- end -}}

{{/*
Puts values over others, in place: sprig's merge would take 0, false and "" for values that are not given. Called with
the values below and those above.
*/}}
{{- define "millrace.overlay" -}}
{{- $below := index . 0 -}}
{{- range $name, $value := index . 1 -}}
{{- if and (kindIs "map" $value) (kindIs "map" (get $below $name)) -}}
{{- include "millrace.overlay" (list (get $below $name) $value) -}}
{{- else if not (kindIs "invalid" $value) -}}
{{- $_ := set $below $name $value -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Settings as environment; a process its own before those of all. Called with root and the own ones. */}}
{{- define "millrace.settingsEnv" -}}
{{- $root := index . 0 -}}
{{- $settings := deepCopy $root.Values.settings -}}
{{- include "millrace.overlay" (list $settings (index . 1)) -}}
{{- $_ := set $settings "SHUTDOWN_GRACE_SECONDS" $root.Values.shutdownGraceSeconds -}}
{{- range $name, $value := $settings }}
- name: {{ $name }}
  value: {{ include "millrace.text" $value | quote }}
{{- end }}
{{- end -}}

{{/* What all pods have in common. Called with root, component and group or "". */}}
{{- define "millrace.podSpec" -}}
{{- $root := index . 0 -}}
{{- $own := index . 2 -}}
serviceAccountName: {{ include "millrace.serviceAccount" $root }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 1000
  runAsGroup: 1000
  fsGroup: 1000
  seccompProfile: { type: RuntimeDefault }
{{- with $own.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "millrace.selector" (index . 1) | nindent 8 }}
{{- end -}}

{{- define "millrace.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
{{- end -}}

{{/* Restarts pods when a secret that the chart makes has changed. */}}
{{- define "millrace.podAnnotations" -}}
{{- $root := index . 0 -}}
checksum/secret: {{ include (print $root.Template.BasePath "/secret.yaml") $root | sha256sum }}
{{- with (index . 1) }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Groups of workers with what workerDefaults adds, as JSON. */}}
{{- define "millrace.groups" -}}
{{- $groups := list -}}
{{- range .Values.workers -}}
{{- $group := deepCopy $.Values.workerDefaults -}}
{{- include "millrace.overlay" (list $group .) -}}
{{- $groups = append $groups $group -}}
{{- end -}}
{{- $groups | toJson -}}
{{- end -}}
